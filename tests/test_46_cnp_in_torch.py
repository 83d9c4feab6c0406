"""CNP in PyTorch in float64: modules of its own, and autodiff through the mean."""

import numpy as np
import pytest

from refmaml.oracles.neural_process_checks import METHOD, decoder, start
from refmaml.oracles.tolerance import relative_error

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.frameworks("torch")
SAME = 1e-11  # as test_80_autodiff.py: two libraries in float64


def encoder_in_torch(sizes):
    layers = []
    for I, O in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [torch.nn.Linear(I, O), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).double()


def loss_in_torch(encoder, decoder, batch, mean=lambda h: h.mean(dim=1, keepdim=True)):
    xs, ys, xq, yq = (torch.from_numpy(a) for a in batch.arrays)
    r = mean(encoder(torch.cat([xs, ys], dim=2)))
    z = decoder(torch.cat([xq, r.expand(-1, xq.shape[1], -1)], dim=2))
    sigma = 0.1 + 0.9 * torch.nn.functional.softplus(z[..., 3:])
    return -torch.distributions.Normal(z[..., :3], sigma).log_prob(yq).mean()


def modules(net, meta, size=4):
    """(encoder, decoder, their parameters in refmaml's order) at meta."""
    torch.set_num_threads(1)
    encoder = encoder_in_torch((5, *METHOD.encoder, size))
    own = torch.nn.Sequential(
        torch.nn.Linear(2 + size, 7), torch.nn.Tanh(), torch.nn.Linear(7, 6)
    ).double()
    flat = torch.from_numpy(np.delete(meta, np.flatnonzero(net.mask(("context",)))))
    parameters = [*own.parameters(), *encoder.parameters()]
    torch.nn.utils.vector_to_parameters(flat, parameters)
    return encoder, own, parameters


def compared(**changed):
    """Relative differences of the gradient and the product from refmaml's."""
    net = decoder()
    meta, batch = start(net)
    encoder, own, parameters = modules(net, meta)
    used = np.delete(np.arange(len(meta)), np.flatnonzero(net.mask(("context",))))
    v = np.zeros(len(meta))
    v[used] = np.random.default_rng(1).standard_normal(len(used))

    value = loss_in_torch(encoder, own, batch, **changed)
    grads = torch.autograd.grad(value, parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    products = torch.autograd.grad(flat @ torch.from_numpy(v[used]), parameters)
    product = torch.cat([p.reshape(-1) for p in products])
    out = METHOD.meta_gradient(net, meta, batch)
    return (
        abs(out.loss - value.item()) / abs(out.loss),
        relative_error(out.grad[used], flat.detach().numpy()),
        relative_error(METHOD.hvp(net, meta, batch, v)[used], product.numpy()),
    )


def test_gradient_and_product_are_those_of_autodiff():
    assert max(compared()) < SAME


def test_the_difference_is_seen():
    """The same comparison refuses a sum over the context in place of the mean."""
    assert min(compared(mean=lambda h: h.sum(dim=1, keepdim=True))) > 1e-3
