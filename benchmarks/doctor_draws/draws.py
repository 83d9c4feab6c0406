"""Draws functions, right and wrong, over method, update rule, net and framework."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from displacement import Displacement
from functions import Loop, Recursion
from implicit import Implicit
from kinds import BY_FORM, DECAY, RULES

import refmaml as rm

METHODS = ("maml", "maml", "fomaml", "anil", "meta-sgd", "maml++", "reptile", "imaml", "frozen")
EXPLICIT = ("maml", "maml", "fomaml", "anil", "reptile", "imaml", "frozen")
FRAMEWORKS = ("torch", "torch", "numpy", "jax")
PROBES = (("quadratic", "mlp"), ("two-layer", "conv"), ("mlp", "conv"))


class Draw(NamedTuple):
    """One function to be judged. kind: a Kind, or None where it is right."""

    seed: int
    function: Any
    method: Any
    framework: str
    probes: tuple
    kind: Any

    @property
    def text(self):
        form = type(self.function).__name__
        return f"{form} in {self.framework}, {self.method!r}, {', '.join(self.probes)}"


def rule_of(rng):
    """An update rule."""
    wd = float(rng.choice([0, 0.01]))
    return [
        rm.SGD(momentum=float(rng.choice([0.5, 0.9])), weight_decay=wd),
        rm.SGD(momentum=0.8, nesterov=True),
        rm.SGD(weight_decay=0.05),
        rm.Adam(betas=(0.8, 0.95), eps=1e-3, eps_root=1e-3),
        rm.Clip(rm.SGD(), norm=float(rng.choice([0.1, 0.3]))),
    ][rng.integers(5)]


def method_of(rng, name):
    """A method with drawn settings; plain gradient descent two times in three."""
    K, alpha = int(rng.integers(2, 5)), 0.1
    rule = {} if rng.uniform() < 0.66 else {"rule": rule_of(rng)}
    return {
        "maml": lambda: rm.MAML(alpha, K, **rule),
        "frozen": lambda: rm.MAML(alpha, K, frozen=("*.bias",), **rule),
        "fomaml": lambda: rm.FirstOrderMAML(alpha, K, **rule),
        "anil": lambda: rm.ANIL(alpha, K, **rule),
        "meta-sgd": lambda: rm.MetaSGD(alpha, K, **rule),
        "maml++": lambda: rm.MAMLPlusPlus(alpha, K, **rule),
        "reptile": lambda: rm.Reptile(alpha, K, **rule),
        "imaml": lambda: rm.IMAML(regularization=2.0),
    }[name]()


def right_function(rng, method, framework):
    """A right function of a method in a framework."""
    if isinstance(method, rm.IMAML):
        return Implicit(framework)
    if isinstance(method, rm.Reptile):
        return Displacement(framework)
    order = 1 if isinstance(method, rm.FirstOrderMAML) else 2
    learned = isinstance(method, rm.MetaSGD | rm.MAMLPlusPlus)
    plain = method.rule.plain and not learned
    if framework == "numpy" or (plain and rng.uniform() < 0.3):
        return Recursion(framework, order=order)
    return Loop(framework, order=order)


def draw(seed, wrong, frameworks=FRAMEWORKS):
    """The Draw of a seed; with wrong, a mistake of a kind that fits its function.

    frameworks  those to draw from; ("numpy",) draws methods that need no autodiff
    """
    rng = np.random.default_rng([seed, int(wrong)])
    framework = frameworks[rng.integers(len(frameworks))]
    names = EXPLICIT if frameworks == ("numpy",) else METHODS
    method = method_of(rng, names[rng.integers(len(names))])
    if frameworks == ("numpy",) and hasattr(method, "rule") and not isinstance(method, rm.Reptile):
        method = replace(method, rule=rm.UpdateRule())
    needs_loop = isinstance(method, rm.MetaSGD | rm.MAMLPlusPlus)
    needs_loop |= hasattr(method, "rule") and not method.rule.plain
    if framework == "numpy" and needs_loop and not isinstance(method, rm.Reptile):
        framework = "torch"
    function = right_function(rng, method, framework)
    probes = PROBES[rng.integers(len(PROBES))]
    if not wrong:
        return Draw(seed, function, method, framework, probes, None)
    kinds = fitting_kinds(function, method)
    kind = kinds[rng.integers(len(kinds))]
    return Draw(seed, kind.make(rng, function, method), method, framework, probes, kind)


def fitting_kinds(function, method):
    """The kinds that change this function and this method."""
    kinds = list(BY_FORM[type(function)])
    if isinstance(function, Loop) and not method.rule.plain and function.order == 2:
        stateful = getattr(method.rule, "momentum", 1)
        kinds += RULES * (6 if stateful else 0)
    if isinstance(function, Loop) and function.order == 1:
        kinds += DECAY * (6 if getattr(method.rule, "weight_decay", 0) else 0)
    backward = {"first-order", "no way back", "only the last step is differentiated"}
    if getattr(function, "order", 2) == 1:
        kinds = [k for k in kinds if k.name not in backward and "H " not in k.name]
        kinds = [k for k in kinds if "way back" not in k.name]
    return kinds
