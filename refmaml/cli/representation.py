"""What training on linear tasks has learned: the shared subspace, and by which weights.

One outer step of size beta on the population loss is B <- B (I - beta Psi) + B_* beta
Phi, with Psi = mean w_i w_i' and Phi = mean w_*i w_i' over the adapted heads w_i and
the true heads w_*i of the tasks. Psi of full rank forgets the old subspace in every
direction (the prior weight); Phi of full rank brings in the true one (the signal
weight). Source: Collins et al. 2022, section 4.
"""

from dataclasses import replace

import numpy as np

TASKS, SEED = 1000, 10**6  # enough that the means of heads are within some percent
LARGEST = 1000  # dim up to which heads are measured: a task's population has dim^2 numbers
AT_ONCE = 10**6  # numbers in the inputs of the tasks that adapt side by side


def measured(config):
    """Whether a configuration's net has such a representation."""
    return config["data"] == "linear" and config["net"] == "two_layer_linear"


def representation(config, net, method, meta):
    """The largest angle to the true subspace, and the weights at the trained point.

    {"angle": degrees; "heads": the eigenvalues of Psi; "signal": the singular values of
    Phi}, both largest first, for dim <= 1000. The heads are adapted on the population
    loss, by mini-batches only where these fit into its dim examples.
    """
    from refmaml.cli.problem import make_tasks
    from refmaml.oracles.closed_forms import principal_angle

    model = make_tasks(config, "test")
    B = net.named(np.asarray(meta[: net.num_params]))["0.weight"].T
    found = {"angle": float(np.degrees(principal_angle(B.astype(float), model.basis)))}
    if model.dim > LARGEST:
        return found
    if (getattr(method, "inner_batch", None) or 0) > model.dim:
        method = replace(method, inner_batch=None)
    heads, true = heads_of_tasks(net, method, meta, model)
    for name, a in (("heads", heads), ("signal", true)):
        found[name] = np.linalg.svd(a.T @ heads / TASKS, compute_uv=False).tolist()
    return found


def heads_of_tasks(net, method, meta, model):
    """The adapted heads w_i and the true heads w_*i of TASKS tasks, (TASKS, rank)."""
    adapted, true = [], []
    size = max(1, AT_ONCE // model.dim**2)
    for first in range(0, TASKS, size):
        tasks = range(first, min(first + size, TASKS))
        batch = model.population(tasks, seed=SEED, dtype=meta.dtype)
        phi = np.asarray(method.adapt(net, meta, batch.x_support, batch.y_support))
        adapted.append(np.broadcast_to(phi[:, -model.rank :], (len(tasks), model.rank)))
        true.append(batch.y_support[..., 0] @ model.basis / np.sqrt(model.dim))
    return np.concatenate(adapted).astype(float), np.concatenate(true).astype(float)
