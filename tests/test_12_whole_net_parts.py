"""Residual sums, group norms and groups of channels in a net that is one kernel."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.execution.fusion import plan
from refmaml.oracles.whole_net_cases import nets_of_parts
from refmaml.oracles.whole_net_checks import probe, quantities, whole_net_check

pytestmark = pytest.mark.slow

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from refmaml.kernels.numba_runtime.memory import Memory  # noqa: E402 (needs numba)
from refmaml.kernels.whole_net import columns as at  # noqa: E402
from refmaml.kernels.whole_net import operations as op  # noqa: E402
from refmaml.kernels.whole_net.graph import nodes_of  # noqa: E402
from refmaml.kernels.whole_net.program import program, supported  # noqa: E402
from refmaml.kernels.whole_net.whole_net import WholeNet, whole_net  # noqa: E402

CPU = kernels.cpu(threads=1)
NETS = nets_of_parts()


def cpu_with_whole_net(made):
    """The cpu kernels with another function `made`: (operations, loss) -> whole net."""
    return kernels.KernelSet("cpu", CPU.functions, empty=CPU.empty, whole_net=made)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETS)
def test_every_net_agrees_with_the_reference_kernels(name, dtype):
    net = NETS[name]
    assert net.with_kernels(CPU).whole_net(net.input_shape, np.dtype(dtype)) is not None
    for shared in (False, True):
        for check in whole_net_check(name, net, CPU, dtype, shared):
            assert check.passed, check


@pytest.mark.parametrize("name", NETS)
def test_results_equal_those_of_the_layers_one_by_one_to_rounding(name):
    net = NETS[name].with_kernels(CPU)
    by_layers = net.with_kernels(CPU.replace(name="cpu"))
    assert by_layers.whole_net(net.input_shape, np.dtype(float)) is None
    given = probe(NETS[name], np.float64, False)[:4]
    ours, theirs = quantities(net, *given), quantities(by_layers, *given)
    for quantity, value in theirs.items():
        # Rounding is 2e-16 of the largest number, and grows over layers and steps.
        assert np.abs(ours[quantity] - value).max() <= 1e-12 * np.abs(value).max(), quantity


def Always(operations, loss, memory, threads):
    """A whole net that runs on several threads whatever its size."""
    made = whole_net(operations, loss, memory, threads)
    made.serial_below = 0
    return made


@pytest.mark.parametrize("name", NETS)
def test_the_bits_depend_neither_on_threads_nor_on_the_tasks_beside(name):
    net, given = NETS[name], probe(NETS[name], np.float32, False)[:4]
    one = quantities(net.with_kernels(CPU), *given)
    several = net.with_kernels(cpu_with_whole_net(lambda *made: Always(*made, Memory(), 3)))
    for quantity, value in quantities(several, *given).items():
        assert np.array_equal(value, one[quantity]), quantity
    for quantity, value in quantities(net.with_kernels(CPU), *(a[1:2] for a in given)).items():
        assert np.array_equal(value, one[quantity][1:2]), quantity


@pytest.mark.parametrize(
    "method",
    [
        rm.MAML(0.05, 2),
        rm.FirstOrderMAML(0.05, 2),
        rm.MAML(0.05, 2, recompute=True),
        rm.MAML(0.05, 2, rule=rm.Adam(eps_root=1e-8)),
        rm.MAML(0.05, 2, rule=rm.Clip(rm.SGD(momentum=0.9), norm=0.5)),
    ],
    ids=["maml", "first order", "recomputed", "adam", "clipped momentum"],
)
@pytest.mark.parametrize("net", [rm.resnet12(2, image=(1, 16, 16)),
                                 rm.conv4(channels=4, image=(1, 12, 12), norm="group")],
                         ids=["resnet12", "group norm conv4"])  # fmt: skip
def test_meta_gradients_equal_those_of_the_layers_one_by_one(net, method):
    rng = np.random.default_rng(0)
    theta, (x, y) = net.init(0, np.float64), (rng.standard_normal((3, 7, *net.input_shape)),
                                              rng.integers(0, 5, (3, 7)))  # fmt: skip
    batch = rm.Batch(x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])
    ours = method.meta_gradient(net.with_kernels(CPU), theta, batch)
    theirs = method.meta_gradient(net.with_kernels(CPU.replace(name="cpu")), theta, batch)
    # Rounding is 2e-16 of the largest number, and grows over layers and steps; Adam
    # divides by a root that may be as small as 1e-4.
    limit = 1e-10 if isinstance(method.rule, rm.Adam) else 1e-12
    assert np.abs(ours.grad - theirs.grad).max() <= limit * np.abs(theirs.grad).max()
    assert np.abs(ours.loss - theirs.loss).max() <= 1e-12


# ---- what one kernel cannot run ------------------------------------------------------


@pytest.mark.parametrize(
    "layers, shape",
    [
        ([rm.Conv2d(2, 3, 2), rm.LayerNorm((3, 4)), rm.Flatten(), rm.Linear(36, 2)], (2, 4, 5)),
        ([rm.Residual([rm.Linear(3, 3), rm.Softmax()]), rm.Linear(3, 2)], (3,)),
        ([rm.Residual([rm.Linear(3, 3), rm.Dropout(0.5)]), rm.Linear(3, 2)], (3,)),
    ],
    ids=["norm over some dimensions", "softmax inside", "dropout inside"],
)
def test_a_net_with_a_layer_that_has_no_operation_runs_layer_by_layer(layers, shape):
    assert plan(rm.Sequential(layers, rm.CrossEntropy(), shape), shape) is None


@pytest.mark.parametrize(
    "layers",
    [
        [rm.Residual([rm.Tanh(), rm.Linear(3, 3)]), rm.Linear(3, 2)],
        [rm.Residual([rm.BatchNorm2d(3), rm.Linear(3, 3)]), rm.Linear(3, 2)],
        [rm.Linear(3, 3), rm.ReLU(), rm.Residual([rm.Linear(3, 3)])],
        [rm.Linear(3, 3), rm.Tanh(), rm.GroupNorm(1, 3), rm.Linear(3, 2)],
    ],
    ids=["activated input", "normalised input", "sum at the end", "norm behind tanh"],
)
def test_orders_that_one_kernel_cannot_run_are_run_layer_by_layer(layers):
    net = rm.Sequential(layers, rm.MSE(), (3,))
    operations, _ = plan(net, (3,))
    assert not supported(operations)
    assert net.with_kernels(CPU).whole_net((3,), np.dtype(float)) is None


def test_a_branch_without_operations_is_not_run():
    product = op.Matrix(3, 3, 0)
    assert not supported((product, op.Residual((), (), 3, 3), product))
    assert supported((product, op.Residual((product,), (), 3, 3), product))


def test_operations_with_equal_numbers_are_told_apart():
    """NamedTuples of two types are equal, and a cache would take one for the other."""

    def operations(pooling):
        layers = [rm.Conv2d(1, 2, 3), pooling(2), rm.Flatten(), rm.Linear(8, 2)]
        return plan(rm.Sequential(layers, rm.CrossEntropy(), (1, 6, 6)), (1, 6, 6))[0]

    most, mean = operations(rm.MaxPool2d), operations(rm.AvgPool2d)
    assert most == mean
    kinds = [program(made, 3, True).table[1, at.KIND] for made in (most, mean)]
    assert kinds == [at.MAX_POOL, at.AVERAGE]


# ---- planted errors ------------------------------------------------------------------


def with_operations(plant):
    """A whole net of other operations: plant(operation) for each, inside sums too."""

    def planted(operation):
        if isinstance(operation, op.Residual):
            branch, shortcut = (tuple(map(planted, part)) for part in operation[:2])
            operation = operation._replace(branch=branch, shortcut=shortcut)
        return plant(operation)

    return lambda operations, loss: whole_net(
        tuple(map(planted, operations)), loss, memory=Memory(), threads=1
    )


def changed(kind, **fields):
    """New fields of all operations of a kind: {name: function of the old value}."""

    def plant(operation):
        if not isinstance(operation, kind):
            return operation
        return operation._replace(
            **{name: value(getattr(operation, name)) for name, value in fields.items()}
        )

    return with_operations(plant)


class Replanned(WholeNet):
    """A whole net whose program is changed: change(table, reals, nodes) -> both."""

    change = None

    def program(self, N, lean):
        made = program(self.operations, N, lean)
        table, reals = self.change(made.table.copy(), made.reals.copy(), nodes_of(self.operations))
        return type(made)(table, reals, made.lists, made.work, made.winners, made.macs)


def replanned(change):
    kind = type("Planted", (Replanned,), {"change": staticmethod(change)})
    return lambda operations, loss: kind(operations, loss, Memory(), 1)


def without(kind):
    """The rows of a kind left out: they compute nothing."""

    def change(table, reals, nodes):
        kept = table[:, at.KIND] != kind
        return np.ascontiguousarray(table[kept]), np.ascontiguousarray(reals[kept])

    return replanned(change)


def branch_twice(table, reals, nodes):
    sums = table[:, at.KIND] == at.SUM
    table[sums, at.X2], table[sums, at.CONSTANT] = table[sums, at.X], 0
    return table, reals


def one_adjoint(table, reals, nodes):
    """The inputs of a Sum share an adjoint that one of them changes."""
    for row in table[table[:, at.KIND] == at.SUM]:
        table[table[:, at.DY] == row[at.DX2], at.DY] = row[at.DY]
        table[table[:, at.DX2] == row[at.DX2], at.DX2] = row[at.DY]
    return table, reals


def no_tangent(table, reals, nodes):
    table[table[:, at.KIND] == at.SUM, at.CONSTANT] = 1
    return table, reals


def no_copy(table, reals, nodes):
    """A norm at the start of a branch overwrites the value that the shortcut reads."""
    for i in np.flatnonzero((table[:, at.KIND] == at.ACTIVATE) & (reals[:, 1] == 1)):
        row, norm = table[i], table[i + 1]
        norm[at.X], norm[at.DX] = row[at.X], row[at.DX]
    return table, reals


PLANTED = {
    "the shortcut's adjoint forgotten": ("residual blocks", without(at.FORK)),
    "the shortcut's value is the branch's": ("residual blocks", replanned(branch_twice)),
    "the shortcut's tangent forgotten": ("residual blocks", replanned(no_tangent)),
    "an adjoint that a term changed": ("residual sums inside others", replanned(one_adjoint)),
    "no copy before a norm": ("residual sums inside others", replanned(no_copy)),
    "the leak behind a sum": (
        "residual blocks",
        changed(op.Activate, slope=lambda slope: 1.01 * slope),
    ),
    "one group for two": ("group norm conv4", changed(op.GroupNorm, groups=lambda G: 1)),
    "a group for each channel": ("group norm conv4", changed(op.GroupNorm, groups=lambda G: 6)),
    "eps forgotten": ("group norm conv4", changed(op.GroupNorm, eps=lambda eps: 0.0)),
    "gamma for beta": ("group norm conv4", changed(op.GroupNorm, beta=lambda beta: beta - 6)),
    "a leak in the ReLU": ("group norm conv4", changed(op.GroupNorm, slope=lambda slope: 0.01)),
    "one gamma for all positions": (
        "layer and instance norm",
        changed(op.GroupNorm, by_position=lambda by_position: False),
    ),
    "groups exchanged for one": (
        "groups of channels",
        changed(op.Convolution, groups=lambda G: {2: 2, 3: 6, 6: 6}[G]),
    ),
    "another layer's filters": ("groups of channels", changed(op.Convolution, weight=lambda w: 0)),
    "no dilation in groups": (
        "groups of channels",
        changed(op.Convolution, dilation=lambda dilation: (1, 1)),
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error):
    name, made = PLANTED[error]
    wrong = cpu_with_whole_net(made)
    assert not all(
        check.passed for check in whole_net_check(name, NETS[name], wrong, np.float64, False)
    )
