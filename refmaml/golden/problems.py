"""The nets, tasks and methods of the golden vectors, and how their inputs are drawn.

float32 holds every input and every hyperparameter exactly, so that implementations in
float32 and float64 start from the same numbers. All extents differ, so that using one
in place of another is an error that shows.
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.golden.files import SCHEMA
from refmaml.golden.intermediates import points
from refmaml.golden.ties import RULE, TIED, plant, ties_net
from refmaml.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
)
from refmaml.methods import SolvedHead, table, table_entry
from refmaml.models import conv4, mlp, two_layer_linear
from refmaml.oracles import cases
from refmaml.oracles.kinks import net_margin
from refmaml.oracles.method_checks import method_terms
from refmaml.quadratic import Quadratic
from refmaml.tasks import Quadratics

# Activations and gaps of pooling windows are at least 20 roundings of float32 away from
# a kink, relative to the largest: no right implementation in float32 takes another
# branch.
MARGIN = 20 * float(np.finfo(np.float32).eps)
TASKS, SUPPORT, QUERY = 3, 5, 7
DRAWS = 100  # every problem here is found within three


class Problem(NamedTuple):
    """A net and {name: method}, all on the same parameters and tasks.

    schema: the first version of the schema that has this problem
    ties: the rule for ties, where the first task has some; see ties.py
    """

    title: str
    net: Any
    methods: dict
    schema: int = 1
    ties: str | None = None


def cases_on(*nets):
    """{case: method} of the table's golden cases for these kinds of nets."""
    return {
        case.name: entry.cls(**case.settings)
        for kind in nets
        for entry in table.TABLE
        for case in entry.golden
        if case.nets == kind
    }


def conv_net(film=False):
    """Two blocks of convolution, batch-norm and ReLU, the first with max-pooling.

    film=True: with a FiLM layer between the blocks, whose context CAVIA adapts.
    """
    return Sequential(
        [
            Conv2d(1, 2, 3, padding=1),
            BatchNorm2d(2),
            ReLU(),
            MaxPool2d(2),
            *([FiLM(2, 3)] if film else []),
            Conv2d(2, 4, 2),
            BatchNorm2d(4),
            ReLU(),
            Flatten(),
            Linear(16, 3),
        ],
        CrossEntropy(),
        (1, 6, 6),
    )


def uneven_net():
    """A net in which heights and widths differ everywhere: images, kernels, strides,
    paddings before and after, pooling windows.
    """
    return Sequential(
        [
            Conv2d(2, 3, (3, 2), stride=(2, 1), padding=((2, 1), (0, 1))),
            BatchNorm2d(3),
            ReLU(),
            MaxPool2d((1, 3), stride=(1, 2)),
            Conv2d(3, 4, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))),
            BatchNorm2d(4),
            ReLU(),
            AvgPool2d((3, 1), stride=(2, 1)),
            Flatten(),
            Linear(24, 3),
        ],
        CrossEntropy(),
        (2, 9, 13),
    )


def problems(schema=SCHEMA):
    """{name: Problem} of this version of the schema and of those before it.

    The methods, too, are those of the version.
    """
    since = {case.name: case.schema for entry in table.TABLE for case in entry.golden}
    return {
        name: p._replace(methods={key: m for key, m in p.methods.items() if since[key] <= schema})
        for name, p in all_problems().items()
        if p.schema <= schema
    }


def all_problems():
    """{name: Problem}."""
    any_net = (table_entry.ALL_NETS, table_entry.NETS_WITH_A_BODY)
    examples = (*any_net, table_entry.NETS_WITH_EXAMPLES)
    return {
        "quadratic": Problem(
            "1/2 (w - c)' A (w - c): x holds A, y holds c",
            Quadratic(7),
            cases_on(table_entry.ALL_NETS, table_entry.SMOOTH_NETS),
        ),
        "mlp": Problem(
            "linear, tanh, linear; cross-entropy",
            mlp((2, 5, 3), "tanh", CrossEntropy()),
            cases_on(*examples, table_entry.NETS_WITHOUT_DEAD_BIASES, table_entry.SMOOTH_NETS),
        ),
        "two-layer-linear": Problem(
            "linear, linear, no biases; half the mean squared error",
            two_layer_linear(4, 2),
            cases_on(*examples, table_entry.NETS_WITHOUT_DEAD_BIASES),
        ),
        "conv": Problem(
            "convolution, batch-norm, ReLU, max-pooling, convolution, batch-norm, ReLU, "
            "linear; cross-entropy",
            conv_net(),
            cases_on(*examples, table_entry.NETS_WITH_BATCH_NORM),
        ),
        "strided": Problem(
            "four blocks of convolution with stride 2 and 'same' padding, batch-norm with "
            "beta only, ReLU; cross-entropy",
            conv4(3, channels=2, image=(1, 18, 18)),
            cases_on(*any_net, table_entry.NETS_WITH_BATCH_NORM),
        ),
        "film": Problem(
            "the conv net with a FiLM layer after pooling, whose context CAVIA adapts",
            conv_net(True),
            cases_on(table_entry.NETS_WITH_CONTEXT),
        ),
        "uneven": Problem(
            "convolutions, max- and mean-pooling with other extents in height than in width: "
            "kernels, strides, paddings before and after, images; batch-norm, ReLU; "
            "cross-entropy",
            uneven_net(),
            cases_on(*any_net, table_entry.NETS_WITH_BATCH_NORM),
            schema=2,
        ),
        "ties": Problem(
            "convolution with 1 x 2 filters, ReLU, max-pooling, linear; cross-entropy. The "
            "first task has ties",
            ties_net(),
            # Not ANIL and its like: filters that do not move keep their ties.
            cases_on(table_entry.ALL_NETS),
            schema=2,
            ties=RULE,
        ),
    }


def draw(problem, seed=0):
    """(theta (P,), direction v (P,), batch, {method: meta (M,)}, margin) in float64.

    Drawn until no kink is near any point at which a method evaluates the net; see
    MARGIN. Raises RuntimeError if none of DRAWS draws is.
    """
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        theta, v = (
            exact(start(problem.net, rng)),
            exact(rng.standard_normal(problem.net.num_params)),
        )
        batch = tasks(problem.net, rng)
        if problem.ties:
            plant(problem.net, theta, batch)
        metas = {
            name: meta_parameters(problem.net, method, theta, rng)
            for name, method in problem.methods.items()
        }
        margin = min(
            distance(problem, method, metas[name], batch)
            for name, method in problem.methods.items()
        )
        if margin > MARGIN:
            return theta, v, batch, metas, margin
    raise RuntimeError(f"{problem.title}: a kink at every one of {DRAWS} draws")


def exact(a):
    """The nearest numbers that float32 represents, as float64."""
    return a.astype(np.float32).astype(np.float64)


def start(net, rng):
    """A point (P,) at which no parameter is 0 or 1 by construction."""
    return net.init(rng) if isinstance(net, Quadratic) else cases.start(net, rng)


def tasks(net, rng):
    """A batch of numbers that float32 represents."""
    if isinstance(net, Quadratic):
        batch = Quadratics(net.num_params).sample(TASKS, seed=int(rng.integers(1 << 30)))
    else:
        batch = cases.tasks_for(net, rng, TASKS, SUPPORT, QUERY)
    return batch.astype(np.float32).astype(np.float64)


def meta_parameters(net, method, theta, rng):
    """[theta, rates]: the learned rates are drawn around alpha, so that all differ.

    The numbers of a solved head differ already.
    """
    meta = method.init(net, theta)
    rates = meta[net.num_params :]
    if isinstance(method, SolvedHead):
        rates[...] = exact(rates)
    else:
        rates *= exact(rng.uniform(0.5, 1.5, rates.shape))
    return meta


def distance(problem, method, meta, batch):
    """The least distance from a kink at all points where the method evaluates the net.

    Infinite for a net without kinks. Planted ties are left out: those of the first task
    at theta.
    """
    net = problem.net
    if isinstance(net, Quadratic):
        return np.inf
    phis = points(net, method, meta, batch, method.meta_gradient(net, meta, batch, trace=True))
    tied = TIED if problem.ties else 0
    return min(
        net_margin(net, phi[first:], x[first:])
        for k, phi in enumerate(phis)
        for x, first in ((batch.x_support, 0 if k else tied), (batch.x_query, 0))
    )


def terms(net, method, batch):
    """How many numbers a meta-gradient sums from end to end.

    See oracles/tolerance.py.
    """
    if isinstance(net, Quadratic):
        return 3 * (getattr(method, "inner_steps", 0) + 1) * net.num_params**2
    return int(method_terms(method, net, batch))


def batch_of(arrays):
    """The Batch in a problem's input arrays."""
    return Batch(*(arrays[name] for name in Batch.__dataclass_fields__ if name in arrays))
