"""The known mistakes, one module for each idea.

A mistake is a right method with one choice changed; see docs/add_a_mistake.md.

    mistake.py             the type `Mistake`, and fix lines that several mistakes share
    sets_and_tasks.py      which set a loss uses, which tasks count
    inner_steps.py         number of inner steps, where a step starts
    step_sizes.py          a factor on the inner step size
    learned_step_sizes.py  gradients of learned step sizes (Meta-SGD, MAML++)
    learned_matrices.py    Meta-Curvature's matrices and their gradients
    parameters.py          parameters that should adapt and do not, or the other way
                           round
    second_order.py        the second-order term
    query_losses.py        at which inner steps the query loss is measured
    layer_kernels.py       batch-norm, max-pooling, softmax
    declared_rule.py       wrong forms of the update rule that the method has
    unrolled.py, reptile.py, imaml.py, erm.py     all mistakes of one family of methods

    family.py              the type `Family`: a mistake whose numbers are fitted
    fitted_rules.py        update rules: momentum, Adam and its kind, clipping
    fitted_numbers.py      step sizes, weight decay, a proximal term, weights of losses
    fitted_imaml.py        lambda, damping, the factor of the Hessian
"""

from refmaml.doctor.mistakes.mistake import Mistake, fix

__all__ = ["Mistake", "fix"]
