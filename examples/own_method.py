"""A method of one's own: MAML with falling step sizes, A_k = alpha / (k + 1).

python examples/own_method.py
"""

from dataclasses import dataclass

import numpy as np

import refmaml as rm


@dataclass(frozen=True)
class DecayingMAML(rm.MAML):
    """phi_{k+1} = phi_k - alpha / (k + 1) grad f(phi_k); the adjoint is MAML's."""

    def start(self, net, theta):
        """phi_0, and the step sizes A_0 .. A_{K-1}."""
        phi, rates = super().start(net, theta)
        return phi, [A / (k + 1) for k, A in enumerate(rates)]


net = rm.mlp((1, 20, 20, 1), activation="tanh")
theta = net.init(seed=0, dtype=np.float64)
batch = rm.Sinusoids().sample(tasks=5, k_shot=10, k_query=10, seed=0, dtype=np.float64)
method = DecayingMAML(inner_lr=0.02, inner_steps=4)
out = method.meta_gradient(net, theta, batch)
print(f"loss {out.loss:.4f} (MAML: {rm.MAML(0.02, 4).meta_gradient(net, theta, batch).loss:.4f})")

# The complex step runs the same inner loop and never computes a Hessian.
v = np.ones(net.num_params)
phi = method.adapt(net, theta + 1e-30j * v, batch.x_support, batch.y_support)
exact = net.loss(phi, batch.x_query, batch.y_query).mean().imag / 1e-30
print(f"exact along v to 12 digits: {abs(out.grad @ v / exact - 1) < 1e-12}")
