"""The Numba kernels against the reference kernels: every layer and loss of the ladder, in both precisions, on any number of threads."""
import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.layers import BatchNorm2d, Conv2d, CrossEntropy, Linear, MaxPool2d, ReLU
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")
REFERENCE = kernels.reference()
CPU = kernels.cpu()
PRECISIONS = [np.float32, np.float64]
LARGER = [cases.LayerCase(Conv2d(16, 24, 3, stride=2, padding="same"), (16, 15, 14)),
          cases.LayerCase(Conv2d(1, 32, 3, padding=1), (1, 20, 20)),
          cases.LayerCase(Linear(90, 70), (90,)),
          cases.LayerCase(BatchNorm2d(24), (24, 13, 14)),
          cases.LayerCase(ReLU(), (24, 13, 14)),
          cases.LayerCase(MaxPool2d(2), (24, 13, 14))]
TINY = [cases.LayerCase(Conv2d(1, 1, 1), (1, 1, 1)), cases.LayerCase(Conv2d(2, 1, 3, padding=1), (2, 1, 1)),
        cases.LayerCase(Linear(1, 1), (1,)), cases.LayerCase(BatchNorm2d(1), (1, 1, 2)), cases.LayerCase(MaxPool2d(1), (1, 1, 1))]


def poisoned(kernel_set):
    """The same kernels on arrays that are NaN until they are filled (integers: -1)."""
    def empty(shape, dtype):
        a = kernel_set.empty(shape, dtype)
        a[...] = np.nan if a.dtype.kind == "f" else -1
        return a
    return kernels.KernelSet(kernel_set.name, kernel_set.functions, empty=empty)


def draws(case, tasks, shared, dtype):
    """Everything the four passes of a layer take: w, rw, x, rx, dy, rdy. (Both sides see the same x: kinks do not matter.)"""
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.standard_normal(shape).astype(dtype)

    def parameters():
        return {name: draw((1 if shared else tasks, *shape)) for name, shape in case.layer.shapes().items()}

    w, rw = parameters(), parameters()
    x, rx = draw((tasks, cases.EXAMPLES, *case.shape)), draw((tasks, cases.EXAMPLES, *case.shape))
    y = case.layer.forward(REFERENCE, w, x)[0]
    return w, rw, x, rx, draw(y.shape), draw(y.shape)


def gradients(case, tasks, dtype):
    """NaN-filled gradients as a net has them: views of a matrix (T, P), so that the rows of an array are apart."""
    sizes = {name: int(np.prod(shape)) for name, shape in case.layer.shapes().items()}
    matrix, out, start = np.full((tasks, sum(sizes.values()) + 1), np.nan, dtype), {}, 0
    for name, size in sizes.items():
        out[name] = matrix[:, start:start + size].reshape(tasks, *case.layer.shapes()[name])
        start += size
    return out


def passes(case, k, w, rw, x, rx, dy, rdy):
    """All that the four passes leave, by name."""
    k, layer = poisoned(k), case.layer
    dw, rdw = gradients(case, len(x), x.dtype), gradients(case, len(x), x.dtype)
    y, saved = layer.forward(k, w, x)
    dx = layer.backward(k, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(k, w, rw, saved, rx)
    rdx = layer.r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy)
    named = {"y": y, "dx": dx, "ry": ry, "rdx": rdx}
    return {**named, **{f"d{n}": a for n, a in dw.items()}, **{f"rd{n}": a for n, a in rdw.items()}}


def worst(case, candidate, *inputs):
    """The largest error of a kernel set, as a fraction of what it may be, and of which quantity."""
    w, _, x, _, dy, _ = inputs
    limit = tolerance(x.dtype, max(x[0].size, dy[0].size, *(a[0].size for a in w.values()), 1))
    truth, values = (passes(case, k, *inputs) for k in (REFERENCE, candidate))
    for name, value in values.items():
        assert value.dtype == x.dtype, name
    return max((relative_error(values[name], truth[name]) / limit, name) for name in truth)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", [*cases.LAYERS, *LARGER, *TINY], ids=str)
def test_every_pass_of_every_layer_agrees_with_the_reference(case, dtype):
    for tasks, shared in ((cases.TASKS, False), (cases.TASKS, True), (1, False)):
        fraction, name = worst(case, CPU, *draws(case, tasks, shared, dtype))
        assert fraction <= 1, f"{name}: {fraction} of the tolerance"


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("loss", cases.LOSSES, ids=str)
def test_every_pass_of_every_loss_agrees_with_the_reference(loss, dtype):
    rng = np.random.default_rng(0)
    z, y = cases.loss_inputs(loss, rng)
    z, y, rz = z.astype(dtype), y if isinstance(loss, CrossEntropy) else y.astype(dtype), rng.standard_normal(z.shape).astype(dtype)
    results = []
    for k in (poisoned(REFERENCE), poisoned(CPU)):
        value, saved = loss.forward(k, z, y)
        results.append((value, loss.backward(k, saved), loss.r_backward(k, saved, rz)))
    for a, b in zip(*results, strict=True):
        assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, z[0].size)


def test_in_float32_the_cpu_kernels_are_as_accurate_as_the_reference_on_a_net_of_real_size():
    """Sums of a thousand float32 numbers, one after another, would stay within every tolerance above and still lose a digit."""
    net = rm.conv4(5, channels=16, loss=rm.CrossEntropy("sum/K"), kernels=kernels.reference())
    method, data, ratios = rm.MAML(0.4, 1, frozen=("BatchNorm2d",)), rm.Glyphs("train"), []
    for seed in range(4):
        theta, batch = net.init(seed), data.sample(2, 5, 1, 1, seed=seed)
        exact = method.meta_gradient(net, theta.astype(np.float64), batch).grad
        errors = [np.linalg.norm(method.meta_gradient(net.with_kernels(k), theta, batch).grad - exact)
                  for k in (kernels.cpu(), kernels.reference())]
        ratios.append(errors[0] / errors[1])
    # Two roundings of one thing differ by chance; a lost digit is a factor of ten.
    assert np.median(ratios) < 3, ratios
