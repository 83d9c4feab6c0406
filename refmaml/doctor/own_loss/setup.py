"""From loss=, params=, batch= to cases: what is checked before any call."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from refmaml.doctor.method_settings import initial_meta
from refmaml.doctor.method_table import IMPLICIT, SOLVED, UNROLLED, entry
from refmaml.doctor.own_loss.batch_forms import read_batch
from refmaml.doctor.own_loss.case import OwnLossCase
from refmaml.doctor.own_loss.model import LossModel
from refmaml.doctor.own_loss.parameters import OwnParameters
from refmaml.doctor.own_loss.second_derivatives import check_derivatives
from refmaml.doctor.own_loss.trees import tree_of
from refmaml.doctor.own_loss.user_loss import UserLoss
from refmaml.errors import expect

FRAMEWORKS = ("numpy", "torch", "jax")
OWN, CURVED = "own net", "large steps"  # names of the cases
NOISE = (
    "the loss draws random numbers, and the function does not seed them: noise (dropout, "
    "unseeded draws)"
)
SEED = "torch.manual_seed(...) at the start of the function, or no dropout in it"
GRADIENT = "the first derivative of the loss is wrong"
BACKWARD = "compare the backward pass of each operation of your own with differences"


@dataclass
class OwnLoss:
    """cases, remarks; finding: (diagnosis, fix) where the loss itself is wrong, else
    None."""

    cases: list
    remarks: list = field(default_factory=list)
    finding: tuple | None = None


@contextmanager
def own_loss(function, method, lib, given, seed):
    """The OwnLoss of a check; the user's module is put back after the block.

    function  a UserFunction
    given     {"loss", "params", "batch", "gradient", "forward", "constant"}
    Raises ArgumentError in one line.
    """
    wanted = f"{', '.join(FRAMEWORKS)} for a loss of the user's own"
    expect(lib.name in FRAMEWORKS, "framework", wanted, repr(lib.name))
    expect(
        given["gradient"] is None or lib.name == "numpy",
        "gradient",
        "nothing beside torch or jax, which differentiate the loss themselves",
        "a function",
    )
    model, remarks = model_of(lib.name, given)
    try:
        yield prepared(function, method, model, given, seed, remarks)
    finally:
        if model.functions.module is not None:
            model.functions.module.restore()


def model_of(framework, given):
    """(the LossModel, remarks)."""
    params, forward = given["params"], given["forward"]
    expect(params is not None, "params", "the parameters of the loss", "None")
    if framework == "torch":
        return torch_model(given["loss"], params, forward), []
    parameters = OwnParameters(params, framework)
    loss = UserLoss(given["loss"], forward)
    if framework == "jax":
        functions = import_module("refmaml.doctor.own_loss.jax_functions").JaxFunctions
        return LossModel(functions(loss, parameters), parameters), []
    functions = import_module("refmaml.doctor.own_loss.numpy_functions").NumpyFunctions
    gradient = given["gradient"]
    expect(gradient is None or callable(gradient), "gradient", "a function", lambda: repr(gradient))
    return LossModel(functions(loss, parameters, gradient), parameters), []


def torch_model(loss, params, forward):
    """The LossModel of a loss in PyTorch; params may be an nn.Module."""
    torch = import_module("torch")
    functions = import_module("refmaml.doctor.own_loss.torch_functions").TorchFunctions
    module, modules = None, {}
    if isinstance(params, torch.nn.Module):
        UserModule = import_module("refmaml.doctor.own_loss.torch_modules").UserModule
        expect(forward is None, "forward", "none beside an nn.Module", "a function")
        modules = dict(params.named_modules())
        module = UserModule(params)
        params, forward = module.params, module.forward
    parameters = OwnParameters(params, "torch", modules)
    tensors = [a for a in tree_of(params).leaves if isinstance(a, torch.Tensor)]
    device = tensors[0].device if tensors else "cpu"
    return LossModel(functions(UserLoss(loss, forward), parameters, module, device), parameters)


def prepared(function, method, model, given, seed, remarks):
    """The OwnLoss of a model."""
    batch = read_batch(given["batch"], model.parameters.framework)
    theta, known = model.init(), entry(method)
    wanted = "a method without a context, or a net with a Context or FiLM layer of refmaml (net=)"
    expect(not known.context, "method", wanted, type(method).__name__)
    solves = known.kind == SOLVED
    wanted = "a method with an inner loop, or a net of refmaml (net=), whose last layer is the head"
    expect(not solves, "method", wanted, type(method).__name__)
    first_look(model, theta, batch)
    rng = np.random.default_rng(seed)
    meta = initial_meta(method, model, theta, rng)
    case = OwnLossCase(OWN, model, method, meta, batch, constant=given["not_meta_learned"] or ())
    case.constant_names  # noqa: B018  # raises for a pattern that selects nothing
    random = random_draws(function, case)
    if random == "unseeded":
        return OwnLoss([case], remarks, (NOISE, SEED))
    remarks += random
    second_order = known.second_order
    derivatives, more = derivatives_of(model, theta, batch, second_order)
    remarks += more
    if derivatives.wrong_gradient:
        text = f"{GRADIENT}: off by {derivatives.gradient:.0e} from differences of the loss"
        return OwnLoss([case], remarks, (text, BACKWARD))
    if second_order and derivatives.wrong_product:
        model.step = derivatives.step
        case = case.with_(wrong_product=wrong_product(model, theta, batch, derivatives))
        remarks.append(remark_on(derivatives))
    cases = [case]
    if function.takes_problem and known.kind in (UNROLLED, IMPLICIT):
        settled = known.settings(method, model, theta, batch)
        meta = initial_meta(settled, model, theta, rng)
        cases.append(case.with_(name=CURVED, method=settled, meta=meta, given=method))
    expect(
        case.truth.any(),
        "loss",
        "one that depends on the parameters",
        "a meta-gradient of 0 throughout",
    )
    return OwnLoss(cases, remarks + changed_buffers(model.functions.module))


def changed_buffers(module):
    """[remark] on buffers of the UserModule that a call changes."""
    if module is None or not module.changed:
        return []
    names = ", ".join(module.changed)
    return [f"a call of the module changes its buffers ({names}): they are put back"]


def derivatives_of(model, theta, batch, second_order):
    """(Derivatives, [remark]); JAX does not compile where that makes them wrong."""
    found, functions = check_derivatives(model, theta, batch, second_order), model.functions
    wrong = found.wrong_gradient or found.wrong_product
    if not wrong or not getattr(functions, "compiled", False):
        return found, []
    functions.without_compiler()
    model.forget()
    plain = check_derivatives(model, theta, batch, second_order)
    if plain.wrong_gradient or plain.wrong_product:
        return plain, []
    off = max(found.gradient, found.product)
    return plain, [
        f"under jax.jit a derivative of the loss is off by {off:.0e} from differences, and right "
        "without it: the truth is computed without it"
    ]


def first_look(model, theta, batch):
    """One call of the loss on every set of every task. Raises in one line."""
    functions = model.functions
    xs, ys = batch.tasks[0][:2]
    if hasattr(functions, "choose"):
        functions.choose(theta, xs, ys)
    if hasattr(functions, "compile"):
        functions.compile(theta, xs, ys)
    for x_support, y_support, x_query, y_query in batch.tasks:
        for x, y in ((x_support, y_support), (x_query, y_query)):
            found = functions.pass_at(theta, x, y, 0, False)
            where = f"on the {x.role} set of task {x.task}"
            expect(np.isfinite(found.loss), "loss", f"a finite number {where}", f"{found.loss}")
            bad = ~np.isfinite(found.grad)
            got = f"NaN or infinity{model.name_of(int(bad.argmax()))}" if bad.any() else ""
            expect(not bad.any(), "loss", f"a finite gradient {where}", got)


def random_draws(function, case):
    """[remark] on a loss that draws random numbers, or "unseeded"."""
    functions = case.net.functions
    if not hasattr(functions, "state"):
        return []
    module = import_module("refmaml.doctor.own_loss.random_draws")
    xs, ys = case.batch.tasks[0][:2]
    if not module.draws_random_numbers(functions, case.theta, xs, ys):
        return []
    seed = module.seed_of(function, case)
    if seed is None:
        return "unseeded"
    functions.random = module.recorded(functions, case.method, case.theta, case.batch, seed)
    return [
        f"the loss draws random numbers: the truth draws them from the function's seed {seed}, "
        "task by task, the support losses before the query loss"
    ]


def wrong_product(model, theta, batch, derivatives):
    """What is wrong with the framework's second derivative, in words."""
    functions, (xs, ys, _, _) = model.functions, batch.tasks[0]
    text = "the second derivative of an operation is wrong"
    if hasattr(functions, "state"):
        located = import_module("refmaml.doctor.own_loss.torch_second_derivatives")
        module = located.wrong_module(functions, theta, xs, ys)
        own = located.own_functions(functions, theta, xs, ys)
        if module:
            text += f", in the module {module}"
        elif own:
            text += f"; the loss's own autograd.Functions: {', '.join(own)}"
    return text


def remark_on(derivatives):
    """A line on a product that is wrong or missing."""
    if derivatives.reason:
        return (
            f"the loss has no second derivative in its framework ({derivatives.reason}): the "
            "truth takes differences of its gradients"
        )
    where = f", most in {derivatives.tensor}" if derivatives.tensor else ""
    return (
        f"the framework's Hessian-vector product of the loss is off by {derivatives.product:.0e} "
        f"from differences of its gradients{where}: the truth takes these"
    )
