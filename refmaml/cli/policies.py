"""From a configuration of --data navigation to policy, method, recipe, evaluation."""

from refmaml import rl
from refmaml.cli import options
from refmaml.cli.kernels import kernel_set
from refmaml.cli.sizes import physical_memory
from refmaml.errors import expect
from refmaml.execution import Sequential
from refmaml.layers import MSE, Linear, ReLU
from refmaml.training.policy_step import METHODS, PolicyMethod, policy_step
from refmaml.training.trainer import Recipe
from refmaml.update_rules import SGD

ESTIMATORS = {"naive": rl.NaiveSurrogate, "lvc": rl.LVC, "dice": rl.DiCE}
# The options that a policy's training reads; others have no effect and are refused.
USED = (
    *("data", "method", "inner_lr", "inner_steps", "net", "hidden", "kernels", "dtype"),
    *options.SAVED["policies"],
    *("tasks", "steps", "minutes", "lr", "seed", "eval_tasks", "eval_steps"),
    *("out", "config", "save_every", "plot", "tensorboard", "threads"),
)
# Bytes of a number, and arrays like the noise: it, states, actions, features of states.
BYTES, ARRAYS = 8, 16


def prepare(ranks, given, config, now):
    """(Recipe, the Progress at step 0, a function theta -> Evaluation); see train.py.

    Raises ArgumentError for options without an effect and for sizes that cannot be.
    """
    check(ranks, given, config)
    policy, method = make_policy(config), make_method(config)
    if now is not None:
        found = len(now.meta)
        expect(found == policy.num_params, "checkpoint", f"{policy.num_params} parameters", found)
    check_memory(config, method)
    from refmaml.tasks import navigation
    from refmaml.training.policy_evaluation import evaluator

    def sample(step):
        return navigation.draw(
            config["seed"], step, config["tasks"], method.batches,
            config["trajectories"], config["horizon"], config["dtype"],
        )  # fmt: skip

    recipe = Recipe(policy, method, SGD(), None, sample, None, meta_step=policy_step)
    start = recipe.start(policy.init(config["seed"], config["dtype"]))
    return recipe, start, evaluator(config, policy, method)


def check(ranks, given, config):
    """Raise ArgumentError for what navigation cannot do."""
    expect(ranks.size == 1, "mpiexec", "one rank beside --data navigation", f"{ranks.size} ranks")
    options.refuse_unused(given, config)
    unused = [name for name in given if name not in USED]
    wanted = "no such option beside --data navigation"
    name = unused[0] if unused else "data"
    expect(not unused, options.flag(name), wanted, f"{given.get(name)}")
    expect(config["method"] in METHODS, "--method", f"one of {', '.join(METHODS)}",
           config["method"])  # fmt: skip
    expect(config["net"] == "mlp", "--net", "mlp beside --data navigation", config["net"])
    known = config["kernels"] in ("auto", "reference", "cpu")
    expect(known, "--kernels", "auto, reference or cpu beside --data navigation",
           config["kernels"])  # fmt: skip
    rates = config["inner_lr"]
    expect(not isinstance(rates, list), "--inner-lr", "one number beside --data navigation", rates)
    expect(config["discount"] <= 1, "--discount", "a number <= 1", config["discount"])
    expect(
        "lr" not in given or config["method"] == "reptile",
        "--lr",
        "--method reptile beside it",
        config["method"],
    )


def make_policy(config):
    """The Gaussian policy: ReLU layers, Xavier's start, sigma 1."""
    layers, sizes = [], (2, *config["hidden"], 2)
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [Linear(inputs, outputs), ReLU()]
    # The reference kernels are as fast as compiled ones on matrices of this size.
    name = "reference" if config["kernels"] == "auto" else config["kernels"]
    return rl.GaussianPolicy(Sequential(layers[:-1], MSE(), (2,), kernel_set(name)))


def make_method(config):
    """The PolicyMethod of a configuration."""
    outer = {"outer_lr": config["lr"]} if config["method"] == "reptile" else {}
    return PolicyMethod(
        config["method"],
        ESTIMATORS[config["estimator"]](),
        config["inner_lr"],
        config["inner_steps"],
        config["discount"],
        region=rl.TrustRegion(limit=config["max_kl"]),
        **outer,
    )


def check_memory(config, method):
    """Raise ArgumentError where a meta-step's trajectories exceed the memory."""
    numbers = 2 * config["trajectories"] * config["horizon"] * config["tasks"] * method.batches
    needed, available = BYTES * ARRAYS * numbers, physical_memory()
    expect(
        needed <= available,
        "configuration",
        lambda: f"trajectories that fit into {available / 1e9:.0f} GB of memory",
        lambda: f"{config['trajectories']} of {config['tasks']} tasks: {needed / 1e9:.0f} GB",
    )
