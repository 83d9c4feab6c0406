"""MAML through an inner loop with momentum, and the derivatives of its settings.

python examples/inner_momentum.py
"""

from dataclasses import replace

import numpy as np

import refmaml as rm

net = rm.mlp((1, 20, 20, 1), activation="tanh")
theta = net.init(seed=0, dtype=np.float64)
batch = rm.Sinusoids().sample(tasks=5, k_shot=10, k_query=10, seed=0, dtype=np.float64)
method = rm.MAML(inner_lr=0.02, inner_steps=4, rule=rm.SGD(momentum=0.5), anchor=0.1)
out = method.meta_gradient(net, theta, batch, hyper=True)
print(f"loss {out.loss:.4f}, |gradient| {np.linalg.norm(out.grad):.4f}")
for name, value in out.hyper.items():
    print(f"dM/d({name}) = {value:+.4f}")


def loss(mu):
    """The meta-loss with another momentum."""
    other = replace(method, rule=rm.SGD(momentum=mu))
    return other.meta_gradient(net, theta, batch).loss


h = 1e-5
difference = (loss(0.5 + h) - loss(0.5 - h)) / (2 * h)
print(f"a difference quotient agrees: {abs(difference - out.hyper['momentum']) < 1e-6}")

# Gradient descent on the settings themselves:
alpha, mu = 0.02, 0.5
for _ in range(5):
    hyper = method.meta_gradient(net, theta, batch, hyper=True).hyper
    alpha, mu = alpha - 1e-5 * hyper["inner_lr"], mu - 0.01 * hyper["momentum"]
    method = replace(method, inner_lr=alpha, rule=rm.SGD(momentum=mu))
print(f"inner_lr {alpha:.4f}, momentum {mu:.4f}: loss {loss(mu):.4f}")
