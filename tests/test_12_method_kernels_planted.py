"""An error in the call of iMAML's or Reptile's kernel is caught by the reference."""

import numpy as np
import pytest
from method_kernel_cases import (
    HALF_OF_IT,
    NETS,
    by_kernel,
    error_over_tolerance,
    imaml,
    reptile,
    start_of,
    tasks,
)

from refmaml.execution import method_kernels
from refmaml.update_rules import SGD


def changed(**new):
    """A planted error: other arguments of the kernel's call, by position."""

    def plant(given):
        return [new[f"at{i}"](a) if f"at{i}" in new else a for i, a in enumerate(given)]

    return plant


def numbers(place, factor):
    """One of the numbers multiplied."""

    def change(settings):
        solver, steps, cg_steps, values = settings
        values[place] *= factor
        return solver, steps, cg_steps, values

    return changed(at5=change)


def steps(inner, cg):
    return changed(at5=lambda s: (s[0], s[1] + inner, s[2] + cg, s[3]))


IMPLICIT_ERRORS = {
    "lambda a hundredth larger": numbers(method_kernels.at.STRENGTH, 1.01),
    "the step size a hundredth larger": numbers(method_kernels.at.RATE, 1.01),
    "an inner step less": steps(-1, 0),
    "an iteration less": steps(0, -1),
    "everything adapts": changed(at2=np.ones_like),
    "the support set for the query set": changed(at4=lambda query: query),
    "no momentum": changed(at6=lambda rule: method_kernels.in_one_kernel(imaml())),
}


@pytest.mark.parametrize("name", IMPLICIT_ERRORS)
def test_an_error_planted_in_the_call_of_imaml_is_caught(name, monkeypatch):
    method, net = imaml(rule=SGD(0.9), **HALF_OF_IT), NETS["mlp"]
    theta, batch = tasks(net)
    made, plant = method_kernels.calls(), IMPLICIT_ERRORS[name]

    class Planted:
        @staticmethod
        def implicit_gradients(*given):
            given = plant(given)
            if name == "the support set for the query set":
                given[4] = given[3]
            return made.implicit_gradients(*given)

    assert error_over_tolerance(method, net, theta, batch) <= 1
    monkeypatch.setattr(method_kernels, "calls", lambda: Planted)
    found = by_kernel(method, net, theta, batch)
    wrong_shape = found.loss.shape != (len(batch),)
    assert wrong_shape or error_over_tolerance(method, net, theta, batch, found) > 100


DISPLACEMENT_ERRORS = {
    "the first step size throughout": changed(at3=lambda rates: rates[:1] * len(rates)),
    "no proximal term": changed(at6=lambda anchor: 0),
    "a fresh moment": changed(at8=lambda moment: 0 * moment),
}


@pytest.mark.parametrize("name", DISPLACEMENT_ERRORS)
def test_an_error_planted_in_the_call_of_reptile_is_caught(name, monkeypatch):
    settings = {"inner_lr": [0.02, 0.01, 0.03], "anchor": 3.0}
    if name == "a fresh moment":
        settings = {"optimizer": "adam", "moment": "carried", "eps": 1e-2}
    method, net = reptile(**settings), NETS["mlp"]
    theta, batch = tasks(net)
    meta, made = start_of(method, net, theta), method_kernels.calls()

    class Planted:
        @staticmethod
        def displacements(*given):
            return made.displacements(*DISPLACEMENT_ERRORS[name](given))

    assert error_over_tolerance(method, net, meta, batch) <= 1
    monkeypatch.setattr(method_kernels, "calls", lambda: Planted)
    found = by_kernel(method, net, meta, batch)
    assert error_over_tolerance(method, net, meta, batch, found) > 100
