"""The golden vectors with ties beside PyTorch and JAX: which conventions these have."""

import numpy as np
import pytest
from golden_cases import case

from refmaml.oracles.tolerance import relative_error

ROUNDING = 1e-12  # relative; another convention differs by more than 1e-3
METHOD = "maml-1"


def tied(golden):
    """(named parameters, step size, tasks, gradients of tasks in the file, mean)."""
    net, method, batch, a, _ = case(golden, "ties", METHOD)
    assert method.inner_steps == 1 and len(batch) == 3
    tasks = list(zip(*batch.arrays, strict=True))
    return net.named(a["meta"]), method.inner_lr, tasks, a["lam"][0], a["grad"]


def flat(named):
    return np.concatenate([np.asarray(g).ravel() for g in named])


@pytest.mark.frameworks("torch")
def test_pytorch_s_own_pooling_and_relu_give_the_file_s_meta_gradient_on_all_tasks(golden):
    """MAML with one step by torch.autograd in float64, functions of PyTorch alone."""
    import torch
    from torch.nn import functional as F

    theta, lr, tasks, of_task, mean = tied(golden)

    def loss(phi, x, y):
        w, b, head, bias = phi
        z = F.max_pool2d(F.relu(F.conv2d(x, w, b)), 2)
        return F.cross_entropy(F.linear(z.flatten(1), head, bias), y)

    found = []
    for task in tasks:
        x, y, x_query, y_query = map(torch.from_numpy, task)
        start = [torch.tensor(a, dtype=torch.float64).requires_grad_() for a in theta.values()]
        g = torch.autograd.grad(loss(start, x, y), start, create_graph=True)
        phi = [p - lr * d for p, d in zip(start, g, strict=True)]
        found.append(flat(torch.autograd.grad(loss(phi, x_query, y_query), start)))
    assert all(
        relative_error(g, right) <= ROUNDING for g, right in zip(found, of_task, strict=True)
    )
    assert relative_error(np.mean(found, axis=0), mean) <= ROUNDING


def jax_poolings():
    """{convention: max-pooling by 2 of x (N, C, H, W)}, and lax.reduce_window's."""
    import jax.numpy as jnp
    from jax import lax

    def places(x):
        return [x[..., p::2, q::2] for p in range(2) for q in range(2)]

    def by_comparison(replaces):
        def pool(x):
            best, *others = places(x)
            for other in others:
                best = jnp.where(replaces(other, best), other, best)
            return best

        return pool

    def shared(x):
        largest = lax.stop_gradient(jnp.stack(places(x)).max(axis=0))
        equal = [(part == largest).astype(x.dtype) for part in places(x)]
        return sum(part * e for part, e in zip(places(x), equal, strict=True)) / sum(equal)

    return {
        "lax.reduce_window": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
        ),
        "first": by_comparison(lambda new, best: new > best),
        "last": by_comparison(lambda new, best: new >= best),
        "shared": shared,
    }


def jax_gradients(theta, lr, tasks, pool, relu, compiled):
    """dM/dtheta of each task, MAML with one step, by JAX in float64."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def loss(phi, x, y):
        w, b, head, bias = phi
        z = lax.conv_general_dilated(x, w, (1, 1), "VALID") + b.reshape(-1, 1, 1)
        z = pool(relu(z)).reshape(len(x), -1) @ head.T + bias
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    def after(theta, x, y, x_query, y_query):
        g = jax.grad(loss)(theta, x, y)
        return loss([p - lr * d for p, d in zip(theta, g, strict=True)], x_query, y_query)

    function = jax.grad(after)
    function = jax.jit(function) if compiled else function
    return [flat(function(list(theta.values()), *task)) for task in tasks]


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_jax_s_reduce_window_has_the_convention_that_docs_golden_states(golden, compiled):
    import jax.numpy as jnp

    from refmaml.autodiff.jax_autodiff import float64

    theta, lr, tasks, of_task, _ = tied(golden)

    def errors(pool, relu):
        rows = jax_gradients(theta, lr, tasks, pool, relu, compiled)
        return [relative_error(g, right) for g, right in zip(rows, of_task, strict=True)]

    with float64():
        found = {
            n: errors(p, lambda z: jnp.where(z > 0, z, 0.0)) for n, p in jax_poolings().items()
        }
    print(found)
    assert 0, found
