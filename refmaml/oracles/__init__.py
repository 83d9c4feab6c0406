"""What the engine is held against, by methods that share no code with it: loops, the complex step, closed forms, dense algebra.

loops.py               rung 1   every forward pass and loss as loops a child could read
complex_step.py        rung 2+  derivatives as Im f(x + i h v) / h: exact to rounding, no subtraction
unrolled.py            rung 4   the whole inner loop in complex arithmetic; it never sees a Hessian
closed_forms.py        rung 5   quadratics, linear regression, the two-layer linear model
dense.py               rung 5   Hessians column by column, linear systems by LAPACK
formulas.py, torch_autodiff.py, jax_autodiff.py      rung 6, where those are installed
finite_differences.py  rung 6   central differences with the step that balances their two errors
cases.py               the inputs every rung is tried on; kinks.py measures how far they are from a kink
layer_checks.py, net_checks.py, closed_form_checks.py, kernel_checks.py       the comparisons
ladder.py              all of them in order: what `refmaml verify` runs
"""
