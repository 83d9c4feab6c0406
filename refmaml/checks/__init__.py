"""Checks of single parts: a verdict and a name for code that is no whole meta-gradient.

    gradient.py        check_gradient: is a gradient the derivative of its loss?
      locate.py        in which arrays and entries it is not
    hvp.py             check_hvp: which matrix is v -> A v, with which factor, damping
      hvp_properties.py   repeatable, 0 at 0, linear, symmetric
      matrices.py      products with the Hessian, Gauss-Newton and Fisher, by
                       differences; batch_weights.py: a mean over batches
    layer.py           check_layer: one layer beside refmaml's own
      layer_cases.py, layer_functions.py, layer_names.py, layer_ties.py
      layer_faults.py  known mistakes (fault.py): norm_faults.py, window_faults.py
                       (with window_loops.py), other_faults.py
    solve.py           check_solve: is it the product or the solver?
      solve_names.py   what another x solves
    hypergradient.py   check_hypergradient: one step size, lambda, ridge
      chain_factors.py    which variable was differentiated in
    rl_meta_gradient.py   check_rl_meta_gradient: which estimator a policy's
                       meta-gradient is (rl/)

    directions.py      derivatives by differences: the step size, kinks
    trees.py           numbers in any container of any framework
    calls.py, factors.py   calling the user's functions; factors in words
    report.py          the CheckReport; renderers.py: text, markdown, JSON, JUnit XML

Only the command line, the pytest plugin and tests import the checks."""

from refmaml.checks.gradient import check_gradient
from refmaml.checks.hvp import check_hvp
from refmaml.checks.hypergradient import check_hypergradient
from refmaml.checks.layer import check_layer
from refmaml.checks.report import CheckReport
from refmaml.checks.rl_meta_gradient import check_rl_meta_gradient
from refmaml.checks.solve import check_solve

__all__ = [
    "check_gradient",
    "check_hvp",
    "check_layer",
    "check_solve",
    "check_hypergradient",
    "check_rl_meta_gradient",
    "CheckReport",
]
