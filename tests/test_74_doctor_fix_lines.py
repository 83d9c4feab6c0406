"""A fix line does not advise what the code at hand already does."""

import functools

import pytest
from implementations import MAML, plus

import refmaml as rm
from refmaml.doctor.frameworks import MOST_SHOWN, first_line
from refmaml.doctor.graph_argument import graph_given
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
    ("source", "given"),
    [
        ("grad(l, phi)", ""),
        ("grad(l, phi, create_graph = True)", "True"),
        ("grad(l, phi, create_graph=False)", "False"),
        ("grad(l, phi, create_graph=not drop)", "not drop"),
        ("grad(inner, create_graph=True)\ngrad(outer, create_graph=False)", "True"),
        ("def f(p, graph=True):\n    return grad(p, create_graph=graph)", "True"),
        ("def f(p, graph=True):\n    return grad(p, create_graph=graph)\nf(p, False)", "False"),
        ("def f(p, *, graph=False):\n    return grad(p, create_graph=graph)\nf(p)", "False"),
        ("def f(p, graph=True):\n    g(p, create_graph=graph)\npartial(f, graph=False)", "False"),
        ("def f(p, graph):\n    return grad(p, create_graph=graph)", "graph"),
        ("def f(p, create_graph=True):\n    return g(p)\nf(p, create_graph=False)", ""),
        ("def f(p): return grad(p, create_graph=graph)\ngraph = False", "False"),
        ("def f(p): return grad(p, create_graph=not drop)\ndrop = False", "True"),
        ("key=lambda g: grad(g, create_graph=second_order))", "second_order"),
    ],
)
def test_what_is_given_as_create_graph_is_followed_to_the_calls(source, given):
    assert graph_given(source) == given


def test_an_override_on_purpose_is_said_as_such():
    line = fitting_advice(TORCH, "def f(l, graph=False): return grad(l, create_graph=graph)")
    assert "create_graph=False is given: the inner loop needs create_graph=True" in line
    assert "rm.FirstOrderMAML" in line and "create_graph=True" not in line
    line = fitting_advice(TORCH, "torch.func.grad(loss)(phi)")
    assert line.startswith("the code at hand differentiates with torch.func: look in")
    assert fitting_advice(TORCH, "torch.func.grad(f)(phi.detach())") == "no .detach() there"


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
    switch = False

    def closed(phi):
        return update(phi, switch)

    assert "switch = False" in source_of(closed)
    partial = source_of(functools.partial(update, g=3))
    assert "partial(update, g=3)" in partial and "def update" in partial


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
