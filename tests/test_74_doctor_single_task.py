"""One task alone excludes mistakes before they are computed for all tasks."""

import numpy as np
import pytest
from own_loss_numpy import LR, STEPS, VARIANTS, example, gradient, loss, maml

import refmaml as rm
from refmaml.doctor import diagnosis, matching
from refmaml.doctor.own_loss.single_task import SingleTask, single_task

pytestmark = pytest.mark.slow


def check(fn, **options):
    params, batch = example()
    given = {"loss": loss, "params": params, "batch": batch, "gradient": gradient}
    given |= {"repeats": 0, "precision": "float64"} | options
    return rm.check_meta_gradient(fn, rm.MAML(LR, STEPS), **given)


@pytest.fixture
def seen(monkeypatch):
    """The SingleTask, or None, of each check."""
    found = []

    def recorded(*arguments):
        found.append(single_task(*arguments))
        return found[-1]

    monkeypatch.setattr(diagnosis, "single_task", recorded)
    return found


@pytest.fixture
def computed(monkeypatch):
    """How many tasks each computed candidate had."""
    found = []

    def counted(case, changes):
        found.append(len(case.batch))
        return candidate(case, changes)

    candidate = matching.candidate
    monkeypatch.setattr(matching, "candidate", counted)
    return found


def test_most_candidates_are_computed_for_one_task_only(seen, computed):
    assert check(lambda p, b: maml(p, b, 2.0)).diagnosis == "the Hessian counts twice"
    assert isinstance(seen[0], SingleTask) and len(seen[0].case.batch) == 1
    assert computed.count(1) > 10 * computed.count(3) > 0


@pytest.mark.parametrize("label", [label for label in VARIANTS if "missing" not in label])
def test_names_are_those_that_all_tasks_give(label, monkeypatch):
    changes, words = VARIANTS[label]
    report = check(lambda p, b: maml(p, b, **changes))
    monkeypatch.setattr(diagnosis, "single_task", lambda *arguments: None)
    assert str(check(lambda p, b: maml(p, b, **changes)).diagnosis) == report.diagnosis


def test_a_function_that_takes_no_single_task_is_compared_on_all(seen):
    def all_or_none(params, batch):
        assert len(batch[0]) == 3
        return maml(params, batch, 2.0)

    assert check(all_or_none).diagnosis == "the Hessian counts twice"
    assert seen == [None]


def test_what_depends_on_the_number_of_tasks_is_named(seen):
    """A third is right for three tasks only, and an outer step shows with two."""
    report = check(lambda p, b: maml(p, b, lr=LR / 3))
    assert "divided by the number of tasks" in report.diagnosis and seen[-1] is not None
    last = check(lambda p, b: maml(p, b, tasks=lambda rows: rows[1:]))
    assert "the first task is left out" in last.diagnosis and seen[-1] is None


def test_a_task_on_which_the_answer_is_wrong_is_chosen(seen):
    """Twice the Hessian in tasks with a positive first number only."""
    params, batch = example()
    positive = [x[0, 0] > 0 for x in batch[0]]
    assert not all(positive) and any(positive)

    def fn(params, batch):
        rows = [
            maml(params, [a[t : t + 1] for a in batch], 1.0 + (batch[0][t][0, 0] > 0))
            for t in range(len(batch[0]))
        ]
        return {k: {n: np.mean([r[k][n] for r in rows], 0) for n in rows[0][k]} for k in rows[0]}

    check(fn, seconds=0.0)
    chosen = seen[0].case.batch.tasks[0][0].value
    assert np.array_equal(chosen, batch[0][positive.index(True)])


def test_a_number_is_fitted_on_one_task_and_confirmed_on_all(seen):
    report = check(lambda p, b: maml(p, b, lr=1.7 * LR))
    assert "multiplied by 1.7" in report.diagnosis and seen[0] is not None


@pytest.mark.slow
def test_a_number_that_depends_on_the_number_of_tasks_is_fitted_on_all():
    """A step that is divided by the square of the number of tasks."""
    report = check(lambda p, b: maml(p, b, lr=LR / len(b[0]) ** 2))
    assert "9 times too short" in report.diagnosis
