"""The Numba kernels against the reference kernels: every layer and loss of the ladder, in both precisions, on any number of threads.

One thread for most of it, as the versions for many are the same code compiled again; that they agree to the bit is a test of its own.
"""
import os
import subprocess
import sys

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.layers import BatchNorm2d, Conv2d, CrossEntropy, LeakyReLU, Linear, MaxPool2d, ReLU, Softplus, Tanh
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")
REFERENCE = kernels.reference()
CPU = kernels.cpu(threads=1)
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


def loss_passes(loss, k, dtype):
    """All that the three passes of a loss leave."""
    rng = np.random.default_rng(0)
    z, y = cases.loss_inputs(loss, rng)
    rz = rng.standard_normal(z.shape).astype(dtype)
    value, saved = loss.forward(poisoned(k), z.astype(dtype), y if isinstance(loss, CrossEntropy) else y.astype(dtype))
    return value, loss.backward(poisoned(k), saved), loss.r_backward(poisoned(k), saved, rz)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("loss", cases.LOSSES, ids=str)
def test_every_pass_of_every_loss_agrees_with_the_reference(loss, dtype):
    for a, b in zip(loss_passes(loss, REFERENCE, dtype), loss_passes(loss, CPU, dtype), strict=True):
        assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, 16)


def test_in_float32_the_cpu_kernels_are_as_accurate_as_the_reference_on_a_net_of_real_size():
    """Sums of a thousand float32 numbers, one after another, would stay within every tolerance above and still lose a digit."""
    net = rm.conv4(5, channels=16, loss=rm.CrossEntropy("sum/K"), kernels=kernels.reference())
    method, data, ratios = rm.MAML(0.4, 1, frozen=("BatchNorm2d",)), rm.Glyphs("train"), []
    for seed in range(4):
        theta, batch = net.init(seed), data.sample(2, 5, 1, 1, seed=seed)
        exact = method.meta_gradient(net, theta.astype(np.float64), batch).grad
        errors = [np.linalg.norm(method.meta_gradient(net.with_kernels(k), theta, batch).grad - exact)
                  for k in (CPU, REFERENCE)]
        ratios.append(errors[0] / errors[1])
    # Two roundings of one thing differ by chance; a lost digit is a factor of ten.
    assert np.median(ratios) < 3, ratios


THREADS = """
import hashlib
import numba
import numpy as np
import refmaml as rm

net = rm.conv4(5, channels=24, head="flatten", kernels=rm.kernels.cpu())
rng = np.random.default_rng(0)
x, y = rng.standard_normal((5, 5, 1, 28, 28)).astype("f"), rng.integers(0, 5, (5, 5))
theta, v = net.init(0)[None], rng.standard_normal((5, net.num_params)).astype("f")

def bits(net):
    primal = net.primal(theta, x, y)
    return hashlib.sha256(primal.loss.tobytes() + primal.grad.tobytes() + net.hvp(primal, v).tobytes()).hexdigest()

seen = [bits(net.with_kernels(rm.kernels.cpu(threads=n))) for n in (1, 3)]
for n in (1, 2, 4, 4):
    numba.set_num_threads(n)
    seen.append(bits(net))
print(len(seen), len(set(seen)))
"""


def test_the_bits_are_the_same_on_one_two_three_and_four_threads():
    environment = {**os.environ, "NUMBA_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, timeout=300)
    assert result.stdout.split() == ["6", "1"], result.stdout + result.stderr


def vectors_passes(k, dtype, tasks=3, P=70_001):
    """What the kernels on flat vectors give, with rows of their own for each task and with shared ones."""
    rng = np.random.default_rng(0)
    a, b, rates = (rng.standard_normal((tasks, P)).astype(dtype) for _ in range(3))
    out = {}
    for name, a_, rates_ in (("own", a, rates), ("shared", a[:1], rates[:1])):
        stepped, scaled, total = k.empty(b.shape, dtype), k.empty(b.shape, dtype), rates[:1].copy()
        k.vector_step(stepped, a_, rates_, b)
        k.vector_scale(scaled, rates_, b)
        k.vector_add_rows(total, b)
        in_place = b.copy()
        k.vector_step(in_place, a_, rates_, in_place)
        out |= {f"{name} step": stepped, f"{name} scale": scaled, f"{name} sum": total, f"{name} in place": in_place}
    return out


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arithmetic_on_vectors_has_the_bits_of_the_reference_on_any_number_of_threads(dtype):
    truth = vectors_passes(REFERENCE, dtype)
    for k in (CPU, kernels.cpu(threads=3)):
        for name, value in vectors_passes(k, dtype).items():
            assert np.array_equal(value, truth[name]), name


@pytest.mark.parametrize("kernel", sorted(name for name in CPU.functions if not name.startswith("vector_")))
def test_a_kernel_that_is_wrong_by_a_thousandth_is_caught(kernel):
    def wrong(out, *rest):
        CPU.functions[kernel](out, *rest)
        out *= out.dtype.type(1.001)
    candidate, dtype = CPU.replace(**{kernel: wrong}), np.float32
    if kernel.startswith(("cross_entropy", "squared_error")):
        losses = [loss_passes(loss, REFERENCE, dtype) for loss in cases.LOSSES]
        wrongs = [loss_passes(loss, candidate, dtype) for loss in cases.LOSSES]
        assert any(relative_error(b, a) > tolerance(dtype, 16) for x, y in zip(losses, wrongs, strict=True)
                   for a, b in zip(x, y, strict=True))
    else:
        assert any(worst(case, candidate, *draws(case, 2, False, dtype))[0] > 1 for case in cases.LAYERS)


@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(0.2), Tanh(), Softplus(), MaxPool2d(2)], ids=str)
def test_nan_and_infinity_go_where_they_go_in_the_reference(layer):
    x = np.array([np.nan, np.inf, -np.inf, -1e4, 1e4, 0.0, -0.0, 1.0]).repeat(8).reshape(2, 1, 2, 4, 4).swapaxes(0, 3).copy()
    with np.errstate(all="ignore"):
        results = [passes(cases.LayerCase(layer, x.shape[2:]), k, {}, {}, x, x, *(2 * [layer.forward(REFERENCE, {}, x)[0]]))
                   for k in (REFERENCE, CPU)]
    for name in results[0]:
        assert np.array_equal(*(np.isnan(r[name]) for r in results)), name
        assert np.array_equal(*(np.isinf(r[name]) for r in results)), name


def test_arrays_in_any_order_of_memory_and_read_only_give_the_same_bits():
    case = cases.LAYERS[3]
    inputs = draws(case, 3, False, np.float64)
    strange = [{n: np.asfortranarray(a) for n, a in part.items()} if isinstance(part, dict) else np.repeat(part, 2, axis=-1)[..., ::2]
               for part in inputs]
    for part in strange:
        for a in part.values() if isinstance(part, dict) else (part,):
            a.flags.writeable = False
    plain, other = passes(case, CPU, *inputs), passes(case, CPU, *strange)
    assert all(np.array_equal(plain[name], other[name]) for name in plain)


def test_complex_numbers_are_refused_with_the_way_out():
    x = np.zeros((1, 1, 2, 3, 3), complex)
    with pytest.raises(TypeError, match=r"float32 and float64, got complex128; refmaml.kernels.reference\(\)"):
        ReLU().forward(CPU, {}, x)


def test_auto_takes_the_cpu_kernels_where_numba_is_there_and_the_reference_where_not(monkeypatch):
    assert kernels.auto().name == "cpu"
    monkeypatch.setattr("refmaml.kernels.kernel_set.importable", lambda module: False)
    assert kernels.auto().name == "reference"
    with pytest.raises(ImportError, match="pip install numba"):
        kernels.cpu()
