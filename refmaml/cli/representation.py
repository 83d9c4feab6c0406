"""What training on linear tasks has learned: the shared subspace, and by which weights.

One outer step of size beta on the population loss is B <- B (I - beta Psi) + B_* beta
Phi, with Psi = mean w_i w_i' and Phi = mean w_*i w_i' over the adapted heads w_i and
the true heads w_*i of the tasks. Psi of full rank forgets the old subspace in every
direction (the prior weight); Phi of full rank brings in the true one (the signal
weight). Source: Collins et al. 2022, section 4.
"""

import numpy as np

TASKS, SEED = 1000, 10**6  # enough that the means of heads are within some percent


def measured(config):
    """Whether a configuration's net has such a representation."""
    return config["data"] == "linear" and config["net"] == "two_layer_linear"


def representation(config, net, method, meta):
    """The largest angle to the true subspace, and the weights at the trained point.

    {"angle": degrees; "heads": the eigenvalues of Psi; "signal": the singular values of
    Phi}, both largest first. The heads are adapted on the population loss.
    """
    from refmaml.cli.problem import make_tasks
    from refmaml.oracles.closed_forms import principal_angle

    model, rank = make_tasks(config, "test"), config["rank"]
    batch = model.population(TASKS, seed=SEED, dtype=meta.dtype)
    B = net.named(np.asarray(meta[: net.num_params]))["0.weight"].T
    heads = np.asarray(method.adapt(net, meta, batch.x_support, batch.y_support))[:, -rank:]
    heads = np.broadcast_to(heads, (TASKS, rank)).astype(float)
    true = batch.y_support[..., 0].astype(float) @ model.basis / np.sqrt(config["dim"])
    singular = [
        np.linalg.svd(a.T @ heads / TASKS, compute_uv=False).tolist() for a in (heads, true)
    ]
    angle = float(np.degrees(principal_angle(B.astype(float), model.basis)))
    return {"angle": angle, "heads": singular[0], "signal": singular[1]}
