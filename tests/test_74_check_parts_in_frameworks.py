"""The checks of products, layers and solves on functions of PyTorch and JAX."""

import numpy as np
import pytest

import refmaml as rm


def classifier():
    """(params, loss, product of one batch, data) of a small net in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    ).double()
    params = {n: p.detach().clone() for n, p in net.named_parameters()}
    x, y = torch.randn(50, 6, dtype=torch.float64), torch.randint(0, 4, (50,))

    def loss(p, batch):
        return F.cross_entropy(functional_call(net, p, (batch[0],)), batch[1])

    def of_batch(p, v, batch):
        w = {n: a.detach().requires_grad_() for n, a in p.items()}
        g = torch.autograd.grad(loss(w, batch), list(w.values()), create_graph=True)
        h = torch.autograd.grad(g, list(w.values()), grad_outputs=list(v.values()))
        return dict(zip(p, h, strict=True))

    return params, loss, of_batch, (x, y)


@pytest.mark.frameworks("torch")
def test_a_product_over_a_data_loader():
    import torch

    params, loss, of_batch, (x, y) = classifier()
    loader = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 50, 16)]

    def product(start, weigh):
        def total(p, v, batches):
            acc, count = {name: start(a) for name, a in p.items()}, 0
            for batch in batches:
                n = len(batch[0]) if weigh else 1
                h, count = of_batch(p, v, batch), count + n
                acc = {name: a + n * h[name] for name, a in acc.items()}
            return {name: a / count for name, a in acc.items()}

        return total

    given = {"params": params, "batches": loader, "loss": loss}
    assert rm.check_hvp(product(torch.zeros_like, True), **given).ok
    noisy = rm.check_hvp(product(torch.randn_like, True), **given)
    assert noisy.verdict == "wrong" and "noise is added" in noisy.diagnosis
    report = rm.check_hvp(product(torch.zeros_like, False), **given)
    assert "averaged without their numbers of examples" in report.diagnosis


@pytest.mark.frameworks("torch")
def test_a_product_without_a_meta_gradient():
    params, loss, of_batch, data = classifier()

    def product(v):
        return of_batch(params, v, data)

    assert rm.check_hvp(product, params, data, loss=loss).ok
    assert rm.check_hvp(product, params).ok


@pytest.mark.frameworks("torch")
def test_a_layer_in_pytorch():
    import torch

    def backward(x, params, dy, term=True):
        axes = (0, 2, 3)
        c = x - x.mean(axes, keepdim=True)
        s = (c.square().mean(axes, keepdim=True) + 1e-5).rsqrt()
        g, xh = dy * params["weight"].view(1, -1, 1, 1), c * s
        dx = g - g.mean(axes, keepdim=True) - term * xh * (g * xh).mean(axes, keepdim=True)
        return {"x": s * dx, "weight": (dy * xh).sum(axes), "bias": dy.sum(axes)}

    assert rm.check_layer(backward, rm.BatchNorm2d(3), framework="torch").ok
    report = rm.check_layer(
        lambda x, p, dy: backward(x, p, dy, False), rm.BatchNorm2d(3), framework="torch"
    )
    assert report.diagnosis == "dx: the variance term is missing"

    def own(x, params, dy):
        w = params["weight"].requires_grad_()
        y = torch.nn.functional.conv2d(x.requires_grad_(), w, stride=(2, 3))
        return torch.autograd.grad(y, (x, w), dy)

    like = rm.Conv2d(2, 3, (3, 2), stride=(2, 3), bias=False)
    assert rm.check_layer(own, like, framework="torch").ok


@pytest.mark.frameworks("torch")
def test_rules_for_ties_of_pytorch_are_conventions():
    import torch
    from torch.nn import functional as F

    def backward(pool):
        def fn(x, params, dy):
            x = x.requires_grad_()
            return torch.autograd.grad(pool(x), x, dy)[0]

        return fn

    def blocks(x):
        x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        return x.unfold(2, 2, 2).unfold(3, 2, 2)

    def close(x):
        parts = blocks(x)
        largest = parts.amax((4, 5), keepdim=True)
        counts = torch.isclose(parts, largest, atol=1e-2).to(x)
        return (parts * counts).sum((4, 5))

    like, given = rm.MaxPool2d(2), {"framework": "torch"}
    first = rm.check_layer(backward(lambda x: F.max_pool2d(x, 2)), like, **given)
    assert first and not any("ties" in remark for remark in first.remarks)
    split = rm.check_layer(backward(lambda x: blocks(x).amax((4, 5))), like, **given)
    assert split and any("the equal values in equal parts" in r for r in split.remarks)
    report = rm.check_layer(backward(close), like, **given)
    assert "a tolerance in the comparison" in report.diagnosis, str(report)


@pytest.mark.frameworks("torch")
def test_a_convolution_in_pytorch_that_mixes_rows_and_columns():
    import torch
    from torch.nn import functional as F

    def backward(stride):
        def fn(x, params, dy, layer):
            x, w = x.requires_grad_(), params["weight"].requires_grad_()
            pads = [*layer.padding[1], *layer.padding[0]]
            y = F.conv2d(F.pad(x, pads), w, params["bias"], stride(layer), 0, layer.dilation,
                         layer.groups)  # fmt: skip
            dx, dw = torch.autograd.grad(y, (x, w), dy)
            return {"x": dx, "weight": dw, "bias": dy.sum((0, 2, 3))}

        return fn

    assert rm.check_layer(backward(lambda layer: layer.stride), rm.Conv2d, framework="torch")
    wrong = backward(lambda layer: layer.stride[::-1])
    report = rm.check_layer(wrong, rm.Conv2d, framework="torch")
    assert report.verdict == "wrong" and "stride" in report.diagnosis, str(report)


@pytest.mark.frameworks("torch")
def test_a_solve_in_pytorch():
    import torch

    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    b = [torch.tensor([1.0]), torch.tensor(2.0)]

    def product(v):
        out = A @ torch.cat([a.reshape(1) for a in v])
        return [out[:1], out[1]]

    x = torch.linalg.solve(A + torch.eye(2), torch.tensor([1.0, 2.0], dtype=torch.float64))
    report = rm.check_solve(product, b, [x[:1], x[1]])
    assert "the damping d = 1" in report.diagnosis
    assert rm.check_solve(product, b, [x[:1], x[1]], damping=1.0).ok


# ---- JAX -----------------------------------------------------------------------------


@pytest.mark.frameworks("jax")
def test_a_pytree_of_jax_with_value_and_grad():
    import jax
    import jax.numpy as jnp

    x = jnp.ones((5, 3)) * jnp.arange(5.0)[:, None] / 5
    params = {"layers": [{"w": jnp.ones((3, 4)) / 3, "b": jnp.zeros(4)}, {"w": jnp.ones(4) / 2}]}

    def loss(params, batch, cut=lambda a: a):
        first, second = params["layers"]
        h = jnp.tanh(batch @ first["w"] + first["b"])
        return ((h @ second["w"] - cut(h).sum(1)) ** 2).mean()

    assert rm.check_gradient(jax.jit(jax.value_and_grad(loss)), params, x).ok
    cut = jax.value_and_grad(lambda p, b: loss(p, b, jax.lax.stop_gradient))
    report = rm.check_gradient(cut, params, x)
    assert report.verdict == "wrong" and report.row("layers.1.w").verdict == "right"
    single = rm.check_gradient(jax.value_and_grad(loss), params, x, precision="float32")
    assert single.verdict == "right"


@pytest.mark.frameworks("jax")
def test_products_and_hypergradients_in_jax():
    import jax
    import jax.numpy as jnp

    def loss(w, x):
        return (jnp.tanh(x @ w) ** 2).mean()

    x, w = jnp.arange(12.0).reshape(4, 3) / 12, jnp.array([0.1, -0.2, 0.3])

    def hvp(w, v, x):
        return jax.jvp(lambda w: jax.grad(loss)(w, x), (w,), (v,))[1]

    assert rm.check_hvp(hvp, w, x, loss=loss).ok
    report = rm.check_hvp(lambda w, v, x: 4 * hvp(w, v, x), w, x, loss=loss)
    assert "4 times the Hessian: a sum over 4" in report.diagnosis
    assert rm.check_hypergradient(jax.value_and_grad(lambda a: jnp.sin(a) * a), jnp.array(0.4)).ok

    def backward(x, params, dy):
        return {"x": (1 - jnp.tanh(x) ** 2) * dy}

    assert rm.check_layer(backward, rm.Tanh(), framework="jax").ok


def test_numpy_needs_no_framework():
    assert rm.check_gradient(lambda w: (2 * w, (w**2).sum()), np.ones(3)).ok
