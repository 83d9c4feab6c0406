"""What a report says of a meta-gradient that was recognised."""

from typing import NamedTuple

from refmaml.checks.factors import meaning, times_text
from refmaml.checks.rl.answers import Fit
from refmaml.checks.rl.probe import LENGTHS, H
from refmaml.checks.rl.recipes import Recipe

NAMES = {
    "naive": "the naive surrogate",
    "lvc": "LVC",
    "dice": "DiCE",
    "first_order": "first-order MAML",
}
NEITHER = "neither J_I nor J_II"
OBJECTIVES = {  # after "it estimates the gradient of"
    "naive": f"{NEITHER}: the surrogate's Hessian lacks the change of the distribution of the "
    "trajectories",
    "lvc": "J_II for trajectories of one step; for longer ones with a bias, as the advantages are "
    "detached: they count as constants",
    "dice": "J_II, with a bias c / N, as step and Hessian share a batch",
    "first_order": f"{NEITHER}: the surrogate's second order is missing",
    "naive+score": "J_I, without a bias at every number of trajectories (E-MAML)",
    "lvc+score": f"{NEITHER}: score term and ratios count the change of the distribution twice",
    "dice+score": f"{NEITHER}: score term and ratios count the change of the distribution twice",
    "first_order+score": f"{NEITHER}: J_I without the Hessian of the step",
}
RIGHT_KINDS = ("dice", "naive+score")
KINDS = tuple(OBJECTIVES)
ALIASES = {"emaml": "naive+score"}
FIXES = {
    "first_order": "keep the graph of the inner step (create_graph=True), and use ratios "
    "exp(log_prob - log_prob.detach()) in the inner loss",
    "naive": "put exp(c - c.detach()) in place of the log-probability, c its sum over the "
    "earlier steps too (DiCE), or add the score term (E-MAML)",
    "lvc": "put exp(c - c.detach()) of the cumulative log-probabilities c times the rewards of "
    "single steps in place of the ratio of one step (DiCE)",
    "dice": 'pass estimator="dice", if it is meant',
    "score": "leave out the score term, or take the Hessian of the naive surrogate beside it",
}


class Mistake(NamedTuple):
    """One mistake in words, and its fix."""

    text: str
    fix: str


WRONG_FORMS = {
    "own rewards, naive": Mistake(
        "each step is weighted with its own reward alone",
        "weight a step with the sum of its later rewards too (returns to go)",
    ),
    "own rewards, ratio": Mistake(
        "the ratio is that of each step alone, times its own reward: earlier actions get no credit",
        "sum the log-probabilities over the earlier steps before exp (cumsum)",
    ),
    "counted for each earlier step": Mistake(
        "cumulative log-probabilities are multiplied with returns to go: a reward counts once "
        "for each earlier step",
        "multiply them with the rewards of single steps, or take ratios of single steps",
    ),
    "divided by the episode count": Mistake(
        "the weights of the cumulative log-probabilities are divided by the episode count: "
        "earlier steps count 1/N, 1/N^2, ... times",
        "weights of 1 inside an episode, 0 at its first step; start the loop at step 1",
    ),
}


def kind_of(fit: Fit) -> str:
    """The word for an estimator: "lvc", "naive+score", ..."""
    recipe = fit.recipe
    base = "first_order" if recipe.first_order else recipe.form.key
    return f"{base}+score" if fit.score is not None else base


def name_of(kind: str) -> str:
    """ "LVC with the score term"."""
    base, plus, _ = kind.partition("+")
    return NAMES.get(base, "an objective of its own") + (" with the score term" if plus else "")


def objective_of(fit: Fit) -> str:
    """What a fit without mistakes estimates."""
    kind = kind_of(fit)
    if kind == "dice" and fit.recipe.independent:
        return "J_II; step and Hessian have independent batches, which removes the bias c / N"
    return OBJECTIVES[kind]


def mistakes_of(fit: Fit) -> list[Mistake]:
    """Every mistake of a fit but the choice of the estimator."""
    recipe = fit.recipe
    found = [WRONG_FORMS[recipe.form.key]] if recipe.form.key in WRONG_FORMS else []
    if recipe.m != 1:
        found.append(
            Mistake(
                "the log-probability is averaged over the action dimensions",
                "sum it over them: the density of an action is the product of its entries'",
            )
        )
    found += of_batch(recipe) + of_scales(fit)
    if not fit.exact_score:
        found.append(of_score(fit))
    return found


def of_batch(recipe: Recipe) -> list[Mistake]:
    """The wrong batch of the meta-loss."""
    if recipe.outer is None:
        return []
    text = f"the meta-loss is computed on the wrong batch: that of inner step {recipe.outer}"
    return [Mistake(text, "compute it on the trajectories of the adapted policy (batch.outer)")]


def of_scales(fit: Fit) -> list[Mistake]:
    """A factor of the inner steps, and one of the whole answer."""
    scale, a = fit.recipe.scale, fit.factor
    if scale in (H, 1 / H) and abs(a / scale - 1) <= fit.agree:
        meant = "trajectories" if scale == H else "steps"
        text = f"all sums over steps are divided by the number of {meant}, unlike problem.over"
        return [Mistake(text, f'pass over="{meant}", if it is meant')]
    whole = [of_factor(fit)] if fit.wrong_factor else []
    return [*of_scale(fit.recipe), *whole]


def of_scale(recipe: Recipe) -> list[Mistake]:
    """A factor of the inner steps."""
    if recipe.scale == 1:
        return []
    if recipe.scale == 0:
        text = "the inner step is 0: the old policy is not detached in it, or the step is not used"
        return [Mistake(text, "detach the old log-probabilities in the inner ratio")]
    if recipe.scale == -1:
        return [Mistake("the inner step descends the return", "change the sign of the inner step")]
    why = meaning(recipe.scale, LENGTHS)
    text = f"the inner step is {times_text(recipe.scale)} the right one: {why}"
    return [Mistake(text, "divide the inner sum as problem.over says")]


def of_factor(fit: Fit) -> Mistake:
    """A factor of the whole answer."""
    a = fit.factor
    if abs(a + 1) <= fit.agree:
        return Mistake(
            "the sign is wrong: it is the gradient of the loss -J",
            'return the gradient of the return, or pass of="loss"',
        )
    text = f"the whole is {times_text(a)} the right one: {meaning(a, LENGTHS)}"
    return Mistake(text, "divide the outer sums as problem.over says, and by the number of tasks")


def of_score(fit: Fit) -> Mistake:
    """A wrong factor of the score term."""
    c = fit.score
    if c is None or c != c:
        return Mistake(
            "the score term is multiplied with another number than the return",
            "multiply it with the mean return of the task's outer batch",
        )
    text = f"the score term is {times_text(c)} the right one: {meaning(c, LENGTHS)}"
    if 0 < c < 1:
        text += "; means stand where J_I has the sum over all trajectories"
    fix = "sum the log-probabilities over all steps of all trajectories, times the mean return"
    return Mistake(text, fix)
