"""A fix line does not advise what the code at hand already does."""

import pytest
from implementations import MAML, plus

import refmaml as rm
from refmaml.doctor.frameworks import MOST_SHOWN, first_line
from refmaml.doctor.mistakes.declared_rule import STATE
from refmaml.doctor.mistakes.second_order import DETACHED
from refmaml.doctor.patterns import CUT
from refmaml.doctor.source_advice import fitting_advice, source_of

TORCH = DETACHED["torch"]


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        (TORCH, "", TORCH),
        (TORCH, "grad(loss, phi)", "torch.autograd.grad(..., create_graph=True) in the inner loop"),
        (TORCH, "grad(l, create_graph = True); g.detach()", "no .detach() there"),
        (STATE["torch"], "m = m.detach()", "no .detach() on the momentum buffer or the moments"),
        (
            CUT["torch"],
            "p.data -= g\nwith torch.no_grad(): pass",
            "no .data or torch.no_grad() between the parameters and the query loss",
        ),
        (
            DETACHED["jax"],
            "jax.lax.stop_gradient(g)",
            "no lax.stop_gradient on the inner gradients or adapted parameters",
        ),
    ],
)
def test_clauses_that_the_source_makes_pointless_are_left_out(text, source, expected):
    assert fitting_advice(text, source) == expected


@pytest.mark.parametrize(
    ("text", "source", "words"),
    [
        (TORCH, "grad(l, create_graph=True)", "has create_graph=True"),
        (STATE["torch"], "m = mu * m + g", "has no .detach(), .data or no_grad"),
        (DETACHED["jax"], "jax.grad(loss)", "has no stop_gradient"),
    ],
)
def test_where_nothing_is_left_the_fix_says_where_to_look(text, source, words):
    line = fitting_advice(text, source)
    assert words in line and "look in what it calls" in line


def update(phi, g):
    """It has no .detach() but in this line."""
    return plus(-0.1, g, phi)  # .data


def outer(problem, params, batch):
    def inner(phi):
        return update(phi, problem.gradient(phi, *batch[:2]))

    return inner(params)


def test_the_source_follows_calls_without_comments_and_without_libraries():
    source = source_of(outer)
    assert "def outer" in source and "def update" in source and "def plus" in source
    assert ".detach()" not in source and ".data" not in source
    assert source_of(rm.check_meta_gradient) == "" and source_of(len) == ""


class Blunder(RuntimeError):
    pass


def test_an_exception_s_text_is_not_cut_in_the_middle_of_its_sense():
    long = "One of the differentiated Tensors appears to not have been used in the graph. "
    text = first_line(Blunder(long * 5))
    assert text.endswith("in the graph.") and len(text) <= MOST_SHOWN + len("Blunder: ")
    wrapped = first_line(Blunder("a leaf Variable that requires grad\nis used in-place.\n\nStack"))
    assert wrapped == "Blunder: a leaf Variable that requires grad is used in-place."
    assert first_line(Blunder("word " * 100)).endswith("word ...")
    assert first_line(Blunder("")) == "Blunder: "


@pytest.mark.frameworks("torch")
def test_create_graph_is_not_advised_to_a_function_that_has_it():
    import torch

    def constant(problem, params, batch):
        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        losses = []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = theta
            for _ in range(problem.method.inner_steps):
                g = torch.autograd.grad(
                    problem.loss(phi, xs, ys), list(phi.values()), create_graph=True
                )
                phi = {
                    n: p - problem.method.inner_lr * d.detach()
                    for (n, p), d in zip(phi.items(), g, strict=True)
                }
            losses.append(problem.loss(phi, xq, yq))
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
        return dict(zip(theta, grads, strict=True))

    report = rm.check_meta_gradient(
        constant, MAML, framework="torch", probes=("quadratic",), precision="float64", repeats=0
    )
    assert report.diagnosis.startswith("first-order")
    assert report.fix == "no .detach() there"
