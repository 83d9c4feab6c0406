"""At which inner steps the query loss is measured."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

ONE_LOSS = fix(
    "one query loss after the last step (MAML++: after each step, with the weights given)"
)


def unadapted_query_loss():
    """The query loss at phi_0 in place of phi_K."""
    changes = {"weights": "start", "rates": "zero"}
    name = "the query loss is measured at the unadapted parameters"
    advice = fix("evaluate the query loss at phi_K, not at theta")
    return Mistake("5", name, changes, advice, True)


def averaged_losses(K):
    """A mean of query losses after several steps in place of the last loss."""
    if K == 1:
        name = "the losses before and after the step are averaged"
        return [Mistake("15", name, {"weights": "all"}, ONE_LOSS)]
    after = "the query losses after every step are averaged"
    every = "the query losses before, between and after the steps are averaged"
    return [
        Mistake("15", after, {"weights": "after"}, ONE_LOSS, True),
        Mistake("15", every, {"weights": "all"}, ONE_LOSS),
    ]


def last_loss_only():
    """The loss after the last step alone, where a weighted sum over steps is meant."""
    name = "only the loss after the last step counts"
    return [Mistake("15", name, {"weights": "last"}, ONE_LOSS)]
