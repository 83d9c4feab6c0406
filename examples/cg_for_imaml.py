"""iMAML by hand: its inner problem, then (I + H/lambda) u = grad g by CG.

python examples/cg_for_imaml.py
"""

import numpy as np

import refmaml as rm

net = rm.mlp((1, 10, 1), activation="tanh")
theta = net.init(seed=0, dtype=np.float64)
batch = rm.Sinusoids().sample(tasks=5, k_shot=10, k_query=10, seed=0, dtype=np.float64)
strength = 20.0  # lambda
imaml = rm.IMAML(strength, inner_steps=200, inner_lr=0.02, cg_steps=30, cg_tol=1e-12)

phi = imaml.adapt(net, theta, batch.x_support, batch.y_support)  # argmin f + lambda/2 |.|^2
support = net.primal(phi, batch.x_support, batch.y_support)
query = net.primal(phi, batch.x_query, batch.y_query)
pull = support.grad + strength * (phi - theta)
print(f"inner problem: |grad F| is below 1e-13 at the solution: {np.abs(pull).max() < 1e-13}")

solution = rm.conjugate_gradients(
    lambda v: v + net.hvp(support, v) / strength, query.grad, maxiter=30, tol=1e-12
)
print(f"linear system: {solution.status[0]}")

out = imaml.meta_gradient(net, theta, batch)
print(f"the mean over tasks is rm.IMAML's: {np.allclose(solution.x.mean(axis=0), out.grad)}")
