"""`refmaml train --data linear` reports the learned subspace and its weights."""

import json

import numpy as np
import pytest

import refmaml as rm
from refmaml.cli import main, representation
from refmaml.training import checkpoint

pytestmark = pytest.mark.usefixtures("folder")
DIM, RANK = 8, 2


def train(method, steps, capsys, name=""):
    """(result.json, theta, what was printed) of a run."""
    out = f"{method}-{steps}{name}"
    words = f"train --data linear --dim {DIM} --rank {RANK} --method {method} --tasks 16"
    words += f" --steps {steps} --eval-tasks 5 --kernels reference --dtype float64 --quiet"
    assert main([*words.split(), "--out", out]) == 0
    now, _ = checkpoint.load(f"{out}/checkpoint.npz")
    with open(f"{out}/result.json") as file:
        return json.load(file), now.meta, capsys.readouterr().out


def test_the_angle_is_that_of_the_two_subspaces(capsys):
    result, theta, printed = train("fo-anil", 3, capsys)
    B = theta[: DIM * RANK].reshape(RANK, DIM).T
    basis = rm.TwoLayerLinear(DIM, RANK).basis
    Q, _ = np.linalg.qr(B)
    sine = np.linalg.norm(Q - basis @ (basis.T @ Q), 2)  # of the largest angle
    angle = result["representation"]["angle"]
    assert abs(np.sin(np.radians(angle)) - sine) <= 1e-12  # a few hundred roundings
    assert f"{angle:.3g} degrees from the tasks' subspace" in printed


def test_the_heads_of_fo_anil_have_full_rank_and_that_of_erm_has_rank_1(capsys):
    for method, rank in (("fo-anil", RANK), ("erm", 1)):
        found = train(method, 60, capsys)[0]["representation"]
        for name in ("heads", "signal"):
            first, second = found[name]
            assert (second > 1e-9 * first) == (rank == 2), (method, found)


def test_the_weights_are_the_means_over_adapted_heads(capsys):
    result, theta, _ = train("fo-anil", 3, capsys)
    B, w = theta[: DIM * RANK].reshape(RANK, DIM).T, theta[DIM * RANK :]
    basis = rm.TwoLayerLinear(DIM, RANK).basis
    batch = rm.TwoLayerLinear(DIM, RANK).population(1000, seed=10**6)
    b = batch.y_support[..., 0] / np.sqrt(DIM)  # (tasks, d): B_* w_*
    heads = w - 0.1 * (w @ B.T - b) @ B  # --inner-lr of linear tasks; the loss has a half
    psi, phi = heads.T @ heads / len(b), (b @ basis).T @ heads / len(b)
    for name, matrix in (("heads", psi), ("signal", phi)):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert np.allclose(result["representation"][name], values, rtol=0, atol=1e-12 * values[0])


@pytest.mark.parametrize("method", ["reptile", "imaml", "maml++", "meta-sgd"])
def test_every_method_that_trains_the_net_is_measured(method, capsys):
    found = train(method, 1, capsys)[0]["representation"]
    assert 0 < found["angle"] <= 90 and len(found["heads"]) == len(found["signal"]) == RANK


def test_heads_do_not_depend_on_how_many_tasks_adapt_at_once(capsys, monkeypatch):
    together = train("fo-anil", 2, capsys)[0]["representation"]
    monkeypatch.setattr(representation, "AT_ONCE", 7 * DIM**2)
    assert train("fo-anil", 2, capsys, "few")[0]["representation"] == together


def test_a_large_net_reports_its_angle_alone(capsys, monkeypatch):
    monkeypatch.setattr(representation, "LARGEST", DIM - 1)
    assert train("fo-anil", 1, capsys)[0]["representation"].keys() == {"angle"}


def test_other_data_have_no_such_line(capsys):
    words = "train --data sinusoid --hidden 4 --steps 1 --eval-tasks 2 --kernels reference --quiet"
    assert main([*words.split(), "--out", "run"]) == 0
    assert "subspace" not in capsys.readouterr().out
    with open("run/result.json") as file:
        assert "representation" not in json.load(file)
