"""Mistakes of ALPaCA's likelihood and prior, and of a neural process's encoder."""

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.mistakes.solved import BOTH, sets

LIKELIHOOD = fix(
    "M = mean over queries of 1/2 [C log(2 pi v s) + |y - q W'|^2/(v s)], s = 1 + q A^-1 q'"
)
PRIOR = fix("W (X'X + L L') = Y'X + W0 L L', where W ~ N(W0, v (L L')^-1) row by row")
POSTERIOR = fix("W, A and s depend on the support features, on W0 and on L: keep them in the graph")
MEAN = fix("r = (1/N) sum of h([x_n, y_n]); each example gets dr / N")
MEANS = fix("r has (1/N_c) sum of h(x_n) for each class c in turn; an example gets dr_c / N_c")
ENCODER = fix("r depends on the encoder's parameters: keep it in the graph of the query loss")
INPUTS = fix("the encoder's input is an example: x, then its target (a label as a unit vector)")
CONTEXT = fix("put r in the place of the context, 0.context or NAME.context, of params")


def alpaca(method):
    """Every mistake of ALPaCA."""
    wrong = (
        ("the variance of a prediction leaves out the weights' uncertainty: s = 1", "noise alone"),
        ("the predictive variance s is a constant", "fixed spread"),
        ("the likelihood has no logarithm of the variance", "no log"),
        ("the logarithm of the variance counts once for all outputs", "one log"),
        ("the squared error of the posterior's mean in place of the likelihood", "squared error"),
    )
    of_prior = (
        ("the prior's covariance is not scaled by the noise: A = X'X + v L L'", "bare prior"),
        ("the prior's mean is 0", "zero mean"),
        ("the prior's mean counts without its precision: W A = Y'X + W0", "bare mean"),
    )
    constant = "the posterior is a constant: nothing goes back to the support features"
    still = "the query features are constants"
    return [
        *(Mistake("52", name, {"likelihood": kind}, LIKELIHOOD, True) for name, kind in wrong),
        *(Mistake("53", name, {"likelihood": kind}, PRIOR) for name, kind in of_prior),
        Mistake("48", constant, {"through": "query"}, POSTERIOR, True),
        Mistake("48", still, {"through": "support"}, BOTH, True),
        *sets("the posterior"),
    ]


def cnp(method):
    """Every mistake of a conditional neural process."""
    pooled = "the encoder's outputs are summed over examples, not averaged"
    last = "only the last example's encoding counts"
    share = "each example gets dr, not dr / N"
    blind = "the encoder does not see the targets"
    unused = "the context is theta's own: the encoding is not used"
    mean = MEANS if method.by_class else MEAN
    targets = (
        [] if method.by_class else [Mistake("54", blind, {"with_targets": False}, INPUTS, True)]
    )
    return [
        Mistake("54", pooled, {"pooled": "sum"}, mean, True),
        Mistake("54", last, {"pooled": "last"}, mean),
        Mistake("54", share, {"share": "1"}, mean, True),
        *targets,
        Mistake("48", "the encoder has no gradient", {"through": "query"}, ENCODER, True),
        Mistake("54", unused, {"adapted": False}, CONTEXT),
        *sets("the encoder"),
    ]
