"""What the tests of ranks share: small runs on sinusoids, and what they leave."""

from refmaml import ERM, IMAML, MAML, MetaSGD, Reptile, Sinusoids
from refmaml.models import mlp
from refmaml.training import Adam, Recipe, Schedule, train

METHODS = [MAML(0.01, 2), MetaSGD(0.01), Reptile(0.01), IMAML(2.0, 3), ERM()]
TASKS = 5


def tasks(numbers, step=0):
    return Sinusoids().sample(numbers, seed=1, step=step)


def gradient_of(ranks, method, chunk=2):
    net, mine = mlp((1, 5, 1), "tanh"), ranks.my_tasks(TASKS)
    return ranks.meta_gradient(
        method, net, method.init(net, net.init(0)), tasks(mine) if mine else None, chunk
    )


def bits(out):
    """All that a MetaGradient holds."""
    return [
        out.loss,
        out.grad.tobytes(),
        out.task_losses.tobytes(),
        sorted((k, a.tobytes()) for k, a in out.report.items()),
    ]


def recipe_of(ranks):
    mine = ranks.my_tasks(TASKS)
    return Recipe(
        mlp((1, 5, 1), "tanh"),
        MAML(0.01),
        Adam(),
        Schedule(1e-2),
        lambda step: tasks(mine, step) if mine else None,
        2,
        ranks,
    )


def trained(ranks, steps, now=None):
    recipe = recipe_of(ranks)
    return train(recipe, now or recipe.start(recipe.net.init(0)), steps=steps)


def state(now):
    """Parameters, optimiser and curve, but for the seconds."""
    return (
        now.meta.tobytes(),
        {k: a.tobytes() for k, a in now.state.items()},
        [(r.step, r.loss, r.grad_norm) for r in now.rows],
    )
