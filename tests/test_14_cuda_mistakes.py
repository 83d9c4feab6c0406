"""Plausible mistakes planted in CUDA kernels: the checks must catch each."""

import numpy as np
import pytest
from cuda_shim.build import ABSENT, build, load
from cuda_shim.device import RaceError, ShimDevice
from cuda_shim.kernels import texts
from fused_layers import FUSED_REFERENCE, LARGE, SMALL, errors
from kernel_passes import DEEP, TILES, draws, worst
from test_13_cuda_shim import sanitized

from refmaml import kernels
from refmaml.execution.fused_layers import NormActPool
from refmaml.kernels.cuda_runtime.source import common
from refmaml.layers import BatchNorm2d
from refmaml.oracles import cases

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]

# {mistake: (text, its replacement)}
FUSED = {
    "a channel is read before all of it is loaded": (
        "held, of);\n    __syncthreads();",
        "held, of);",
    ),
    "sums are overwritten while they are read": (
        "    __syncthreads();  // before the next sums",
        "//",
    ),
    "the tangent of s is left out": ("norm.rs() * inner + norm.s * rinner", "norm.s * rinner"),
    "the last of equals wins": ("a > best.a ||", "a >= best.a ||"),
    "a pixel in no window counts as a maximum": ("(a >= of.Ho || b >= of.Wo)", "(b >= of.Wo)"),
    "a result past the end counts": (
        "if (indices[j].hi < N) keep(indices[j],",
        "keep(indices[j].hi < N ? indices[j] : indices[0],",
    ),
}
CONVOLUTIONS = {
    "no barrier between a slice and the next": (
        "loader.publish(buffer);\n        __syncthreads();",
        "loader.publish(buffer);",
    ),
    "one buffer for both slices": ("loader.store_slice(buffer ^ 1)", "loader.store_slice(buffer)"),
    "both halves are of the first product": ("pairs{first, second}", "pairs{first, first}"),
    "the steps of two slices in one buffer": (
        "loader.publish(buffer);",
        "loader.publish(buffer ^ 1);",
    ),
    "a pixel beyond the upper border counts": (
        "unsigned(column.row + step.row) < unsigned(plan.seen_rows)",
        "column.row + step.row < plan.seen_rows",
    ),
    "every part sums to the end": (
        "begin + chunk < plan.depth ? begin + chunk : plan.depth",
        "plan.depth",
    ),
    "a tap too few under a stride": (
        "taps(r < k ? (k - 1 - r) / s + 1 : 0)",
        "taps(r < k ? (k - 1 - r) / s : 0)",
    ),
    "the borders of the wrong image": (
        "of.Ho,\n               of.Wo,\n",
        "of.H,\n               of.W,\n",
    ),
    "neighbours under a stride are adjacent": ("of.sH == 1 && of.sW == 1}", "true}"),
    "positions of the next part count too": (
        "begin + chunk < depth ? begin + chunk : depth",
        "depth",
    ),
    "a second product is forgotten": (
        "if (pairs == 2) add_positions",
        "if (pairs == 3) add_positions",
    ),
    "any four neighbours are adjacent": ("plan.to_row % 4 == 0", "true"),
}
OVERRUN, MISALIGNED = "heap-buffer-overflow", "misaligned address"
SEEN = {  # {mistake: (operation, text, its replacement, the report of the sanitizer)}
    "beyond the shared memory for a channel": (
        "norm_act_pool",
        "room[at.hi * L + at.lo]",
        "room[at.hi * L + at.lo + 1]",
        OVERRUN,
    ),
    "beyond the border of an image": (
        "conv2d",
        "unsigned(column.column + step.column) < unsigned(plan.seen_columns)",
        "true",
        OVERRUN,
    ),
    "beyond the last filter": (
        "conv2d",
        "if (threadIdx.x == f && o + f < O)",
        "if (threadIdx.x == f)",
        OVERRUN,
    ),
    "beyond the last column": ("conv2d", "if (i >= plan.columns) continue;", "", OVERRUN),
    "four at a time from anywhere": (
        "conv2d",
        "reinterpret_cast<unsigned long long>(out) % alignof(Vector4) == 0",
        "true",
        MISALIGNED,
    ),
}
SANITIZED = """
import sys
from test_14_cuda_mistakes import CASES, FUSED_CASES, SEEN, agrees, with_mistake
folder, mistake = sys.argv[1:]
operation, old, new, _ = SEEN[mistake]
broken = with_mistake(folder, operation, old, new, sanitize=True)
for case in FUSED_CASES if operation == "norm_act_pool" else CASES:
    agrees(case, broken)
"""
FUSED_CASES, CASES = (
    (LARGE[0], SMALL[0], SMALL[3]),
    (TILES[1], cases.LAYERS[1], cases.LAYERS[3], *DEEP, TILES[0]),
)


def with_mistake(folder, operation, old, new, sanitize=False):
    """The CUDA kernels of an operation with `new` in place of `old` in their text."""
    shared, needed = common(), (operation, "bias", "vector")
    assert shared.count(old) + texts()[operation].count(old) >= 1, old
    changed = {name: texts()[name].replace(old, new) for name in needed}
    library = build(shared.replace(old, new), changed, "float64", folder, sanitize, once=True)
    return kernels.cuda(ShimDevice({"float64": load(library)}))


def agrees(case, candidate):
    if isinstance(case.layer, NormActPool):
        assert max(errors(case, candidate, 2, False, np.float64).values()) <= 1
    else:
        assert worst(case, candidate, *draws(case, 2, False, np.float64))[0] <= 1


@pytest.mark.parametrize("mistake", FUSED)
def test_a_mistake_in_the_fused_kernels_is_caught(libraries, mistake):
    broken = with_mistake(libraries, "norm_act_pool", *FUSED[mistake])
    with pytest.raises((RaceError, AssertionError)):
        for case in FUSED_CASES:
            agrees(case, broken)
        the_first_of_equals_wins(broken)


@pytest.mark.parametrize("mistake", CONVOLUTIONS)
def test_a_mistake_in_the_convolutions_is_caught(libraries, mistake):
    broken = with_mistake(libraries, "conv2d", *CONVOLUTIONS[mistake])
    with pytest.raises((RaceError, AssertionError)):
        for case in CASES:
            agrees(case, broken)


@pytest.mark.parametrize("mistake", SEEN)
def test_an_access_out_of_bounds_is_caught_by_the_sanitizer(libraries, mistake):
    result = sanitized(["-c", SANITIZED], libraries, mistake)
    assert result.returncode != 0 and SEEN[mistake][-1] in result.stderr, (
        result.stdout + result.stderr[-2000:]
    )


def the_first_of_equals_wins(candidate):
    x = np.where(np.arange(96) % 5 < 3, -1.0, 2.0).reshape(1, 2, 2, 4, 6)
    layer = NormActPool(BatchNorm2d(2, gamma=False, beta=False), 0.0, (2, 3))
    (_, ours), (_, truth) = (layer.forward(k, {}, x) for k in (candidate, FUSED_REFERENCE))
    assert (
        ours.place.dtype == np.int8
        and np.array_equal(ours.place, truth.place)
        and len(np.unique(truth.place)) > 1
    )


def test_of_equals_the_first_wins(cuda):
    the_first_of_equals_wins(cuda)


def test_the_bits_of_a_task_do_not_depend_on_other_tasks(cuda):
    for case in DEEP:
        inputs = draws(case, 3, False, np.float32)
        together = case.layer.forward(cuda, inputs[0], inputs[2])[0]
        alone = case.layer.forward(
            cuda, {name: w[1:2] for name, w in inputs[0].items()}, inputs[2][1:2]
        )[0]
        assert np.array_equal(together[1:2], alone)
