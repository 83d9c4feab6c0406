"""Meta-Curvature's matrices: in the step, in the adjoint, and their own gradient."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

TURNED = fix("lam_k = lam_{k+1} - alpha H (M_o' lam_{k+1} M_i): the adjoint of M_o G M_i'")
OWN = fix("dM_o = sum over steps of -alpha lam_{k+1} M_i G_k', dM_i alike with lam' M_o G_k")
STEP = fix("phi - alpha * M_o @ grad @ M_i.T")


ALWAYS = (
    ("the adjoint goes through M, not M'", "untransposed", TURNED),
    ("the adjoint leaves the matrices out", "not in adjoint", TURNED),
    ("the matrices have no gradient", "zero", OWN),
    ("the matrices' gradient has the wrong sign", "negative", OWN),
    ("the gradient of each matrix is transposed", "exchanged", OWN),
    ("the gradient of a matrix leaves the other one out", "alone", OWN),
    ("the matrices are not used: the steps are MAML's", "ignored", STEP),
)


def learned_matrices(method):
    """What goes wrong in the matrices of Meta-Curvature."""
    found = list(ALWAYS)
    if method.rule.plain:
        found.append(("the matrices' gradient is first-order", "query", OWN))
    if method.inner_steps > 1:
        text = "the matrices' gradient holds the {} inner step only"
        found += [(text.format(which), which, OWN) for which in ("first", "last")]
    return [Mistake("matrices", name, {"matrices": form}, advice) for name, form, advice in found]
