"""The golden vectors with ties beside PyTorch and JAX: which conventions these have."""

from pathlib import Path

import numpy as np
import pytest
from golden_cases import case

from refmaml.golden.ties import TIED
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


def reduce_window(x):
    """Max-pooling by 2 of x (N, C, H, W), as JAX has it."""
    import jax.numpy as jnp
    from jax import lax

    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def last(x):
    """The same; of equal values the last in row order gets the whole adjoint."""
    import jax.numpy as jnp

    best, *others = [x[..., p::2, q::2] for p in range(2) for q in range(2)]
    for other in others:
        best = jnp.where(other >= best, other, best)
    return best


def shared(x):
    """The same; equal values share the adjoint."""
    import jax.numpy as jnp

    places = jnp.stack([x[..., p::2, q::2] for p in range(2) for q in range(2)])
    equal = (places == places.max(axis=0)).astype(x.dtype)
    return (places * equal).sum(axis=0) / equal.sum(axis=0)


def relu(z):
    import jax

    return jax.nn.relu(z)


def maximum(z):
    """ReLU as a maximum: its derivative at 0 is 1/2."""
    import jax.numpy as jnp

    return jnp.maximum(z, 0.0)


def jax_errors(golden, pool, activation, compiled):
    """The error of each task's gradient, MAML with one step by JAX in float64."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from refmaml.autodiff.jax_autodiff import float64

    theta, lr, tasks, of_task, _ = tied(golden)

    def loss(phi, x, y):
        w, b, head, bias = phi
        z = lax.conv_general_dilated(x, w, (1, 1), "VALID") + b.reshape(-1, 1, 1)
        z = pool(activation(z)).reshape(len(x), -1) @ head.T + bias
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    def after(theta, x, y, x_query, y_query):
        g = jax.grad(loss)(theta, x, y)
        return loss([p - lr * d for p, d in zip(theta, g, strict=True)], x_query, y_query)

    gradient = jax.jit(jax.grad(after)) if compiled else jax.grad(after)
    with float64():
        found = [flat(gradient(list(theta.values()), *task)) for task in tasks]
    return [relative_error(g, right) for g, right in zip(found, of_task, strict=True)]


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_jax_s_pooling_and_relu_give_the_file_s_meta_gradient_on_all_tasks(golden, compiled):
    """lax.reduce_window takes the first of equal values; jax.nn.relu has 0 at 0."""
    assert max(jax_errors(golden, reduce_window, relu, compiled)) <= ROUNDING


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(
    "pool, activation", [(last, relu), (shared, relu), (reduce_window, maximum)]
)
def test_other_conventions_differ_on_the_task_with_ties_and_on_no_other(golden, pool, activation):
    errors = jax_errors(golden, pool, activation, compiled=True)
    assert min(errors[:TIED]) > 1e-3 and max(errors[TIED:]) <= ROUNDING


@pytest.mark.frameworks("jax")
def test_docs_golden_names_the_version_of_jax_that_these_tests_have_seen():
    """Another version with the same conventions: write its number there."""
    import jax

    page = (Path(__file__).parent.parent / "docs" / "golden.md").read_text()
    assert f"JAX {jax.__version__} has this rule, too, with `lax.reduce_window`" in page
