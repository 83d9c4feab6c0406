"""Meta-train a small net on sinusoids with MAML, then adapt it to new ones in one step.

python examples/train_on_sinusoids.py
"""

import numpy as np

import refmaml as rm

net = rm.mlp((1, 40, 40, 1), activation="tanh")
tasks = rm.Sinusoids()
maml = rm.MAML(inner_lr=0.02, inner_steps=1)


def loss_after_adaptation(theta, seed):
    """Mean squared error on the query sets of new tasks, before and after a step."""
    batch = tasks.sample(tasks=200, k_shot=10, k_query=10, seed=seed)
    phi = maml.adapt(net, theta, batch.x_support, batch.y_support)
    return [net.loss(w, batch.x_query, batch.y_query).mean() for w in (theta[None], phi)]


def train(theta, steps=500, lr=0.005):
    """Adam (Kingma and Ba 2015) on the meta-gradient, each step on new tasks."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t in range(1, steps + 1):
        batch = tasks.sample(tasks=25, k_shot=10, k_query=10, seed=t)
        g = maml.meta_gradient(net, theta, batch).grad
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return theta


start = net.init(seed=0)
for name, theta in (("untrained", start), ("trained", train(start))):
    before, after = loss_after_adaptation(theta, seed=10**6)
    print(f"{name}: loss {before:.1f} before adaptation, {after:.1f} after one step")
