"""Oracles: computations that share no code with the engine and check it.

They use loops, the complex step, closed forms and dense algebra.

loops.py               rung 1   every forward pass as plain loops
loss_loops.py          rung 1   every loss as plain loops
complex_step.py        rung 2+  derivatives as Im f(x + i h v) / h: exact to rounding
meta_objectives.py     rung 4   the inner loop in complex arithmetic, without Hessians
inner_rules.py         rung 4   update rules by torch.optim's formulas
closed_forms.py        rung 5   quadratics, linear regression, two-layer linear model
dense.py               rung 5   Hessians column by column, linear systems by LAPACK
finite_differences.py  rung 6   central differences; see refmaml/autodiff/ for others

layer_cases.py, cases.py   the inputs of every rung; kinks.py measures their distance
                           from a kink, tolerance.py gives the largest error allowed
layer_checks.py, net_checks.py, method_checks.py, closed_form_checks.py
                           the comparisons on rungs 1 to 6
rule_checks.py         rung 4 for update rules and hypergradients
wrong_gradients.py         wrong meta-gradients that the checks must refuse
kernel_checks.py, whole_net_checks.py
                           rung 7: other kernels against the reference kernels
guarded.py                 a check that raises becomes a failed check
ladder.py                  all checks in order: what `refmaml verify` runs
"""
