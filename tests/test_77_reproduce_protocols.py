"""The configurations of the Omniglot table."""

import json
from pathlib import Path

import pytest

from refmaml.cli import options, problem
from refmaml.cli.omniglot import cells, protocols

ROOT = Path(__file__).parent.parent


def every_cell():
    return protocols.cells_of(protocols.PROTOCOLS, protocols.COLUMNS, protocols.ROWS)


@pytest.mark.parametrize("protocol, column, row", every_cell())
def test_every_cell_sets_every_option_and_can_be_built(protocol, row, column):
    config = protocols.configuration(protocol, row, column)
    assert config.keys() == options.settle({}).keys() and options.reread(config) == config
    method, net = problem.make_method(config), problem.make_net(config | {"kernels": "reference"})
    problem.method_for_evaluation(method, config, len(method.init(net, net.init(0))), net)
    assert net.num_params == sum(a.size for a in net.named(net.init(0)).values())


def test_the_published_options_are_those_of_the_published_code():
    maml, reptile = (
        protocols.configuration("as-published", row, "5w1s") for row in ("maml", "reptile")
    )
    assert (maml["inner_lr"], maml["loss_scale"], maml["tasks"], maml["steps"]) == (
        0.4,
        "sum/K",
        32,
        60000,
    )
    assert maml["frozen"] == ["BatchNorm2d"] and not maml["bn_gamma"] and maml["eval_steps"] == 3
    assert (reptile["inner_moment"], reptile["rotations"], reptile["eval_rotations"]) == (
        "carried",
        "as_classes",
        "none",
    )
    assert (reptile["support_order"], maml["support_order"]) == ("shuffled", "by_class")
    wide = protocols.configuration("as-published", "maml", "20w1s")
    assert (wide["inner_lr"], wide["inner_steps"], wide["tasks"]) == (0.1, 5, 16)


def test_under_the_equal_protocol_net_split_query_size_and_time_are_the_same_for_all():
    shared = [
        name
        for name in (*options.SAVED["tasks"], *options.SAVED["net"], "minutes")
        if name not in ("train_shots", "support_order")
    ]
    for column in protocols.COLUMNS:
        first, *others = (
            {name: protocols.configuration("equal", row, column)[name] for name in shared}
            for row in protocols.rows_of("equal")
        )
        assert all(other == first for other in others)


def test_committed_results_have_the_configurations_of_the_code():
    """Each committed result has the configuration of its cell, without FREE options."""
    for path in sorted((ROOT / "benchmarks/omniglot").glob("*/*/*/config.json")):
        protocol, column, row = path.parts[-4:-1]
        saved, wanted = (
            options.reread(json.loads(path.read_text())),
            protocols.configuration(protocol, row, column),
        )
        assert {n: v for n, v in saved.items() if n not in cells.FREE} == {
            n: v for n, v in wanted.items() if n not in cells.FREE
        }, path
