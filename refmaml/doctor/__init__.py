"""The doctor: a verdict on anybody's meta-gradient, and the name of the mistake where there is one.

    check.py        check_meta_gradient: the whole procedure, and its public face
    cases.py        a case: a net, a method, parameters and tasks, with the true meta-gradient and how exactly it can be known
    probes.py       the cases everybody is tried on, chosen so that mistakes show
    problem.py      what the user's function is told: what to differentiate, and a loss in its own framework
    boundary.py     NumPy, PyTorch, JAX and CuPy arrays, layouts, and one clear line for what cannot be read
    returns.py      what the user's function may return
    loop.py         the recursions of refmaml.methods with every choice a field, so that a mistake is a field changed
    update_rules.py, implicit.py, wrong_kernels.py      the choices that need formulas of their own
    mistakes.py     what the dictionary is made of; dictionary.py: the dictionary, method by method
    matching.py          which mistake, at which scale, explains what was returned; scale_factors.py: what that scale is
    patterns.py    what can be seen without a candidate: nothing at all, another order, clipping, tensors with scales of their own
    calls.py        repeated calls, one task at a time, tasks in another order
    bisection.py    where a mistake without a name sits: the first stage and tensor that disagree
    report.py       what is said about it; renderers.py: as text, markdown, JSON and JUnit

Imports run one way, from the top of refmaml downwards; only the command line, the pytest plugin and tests import the doctor.
"""

from refmaml.doctor.check import check_meta_gradient
from refmaml.doctor.report import Report

__all__ = ["check_meta_gradient", "Report"]
