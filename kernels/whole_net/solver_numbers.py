"""The numbers of iMAML's solvers for the compiled functions; see implicit.py."""

# The inner solvers, in the order of SOLVERS in refmaml/methods/imaml.py, and how CG
# ended, in the order of STATUSES in conjugate_gradients.py there.
GRADIENT_DESCENT, CONTROLLED_DESCENT, NEWTON_CG = range(3)
CONVERGED, MAXITER, NEGATIVE_CURVATURE, BREAKDOWN, NONFINITE = range(5)
# The places of `numbers`: lambda, the first step size, relative residuals that end the
# inner loop, CG and the CG of a Newton step; then what the solvers' modules define, of
# which ROUNDING is a factor of |F|.
# fmt: off
(ZERO, HALF, ONE, STRENGTH, RATE, INNER_TOL, CG_TOL, NEWTON_TOL, GROW, SHRINK, ROUNDING,
 ARMIJO) = range(12)
# fmt: on
COUNT = ARMIJO + 1
# The columns of `residuals`: |grad F| / |lambda (phi - theta)|; |b - A x| before CG and
# after it.
INNER, BEFORE, AFTER = range(3)
