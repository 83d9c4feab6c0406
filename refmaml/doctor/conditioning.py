"""How exactly a true meta-gradient can be known: rounding, and choices near a kink.

The true gradient is computed again with every input off by one rounding, and in
float32. How far it moves is its conditioning, and from that follows what a right
gradient may be off by."""

from contextlib import suppress
from dataclasses import fields

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.method_table import DISPLACEMENT, entry
from refmaml.doctor.solved_parameters import encoder_margin
from refmaml.errors import NonFiniteError
from refmaml.layers import CrossEntropy
from refmaml.oracles.kinks import net_margin

TRIALS = 3  # perturbations by one rounding each that the conditioning is measured with
KINK = 30  # distance to a kink, in roundings, below which a choice may flip
NEARBY = 0.01  # relative change of the inputs that float32 is tried at: new roundings, the
# same cancellations
CANCELLED = 1000  # roundings of the whole gradient allowed where channels may cancel:
# batch-norm divides a constant channel by sqrt(1e-5)


def moved(case, size, scale=np.abs):
    """(M,) how far the true gradient moves when every number a of the inputs, and every
    probability, is off by up to `size` scale(a): the largest of TRIALS."""
    rng, found = np.random.default_rng(0), np.zeros(len(case.meta))
    net = perturbed_probabilities(case.net, perturbation(rng, size, scale))
    for _ in range(TRIALS):
        other = case.nearby(rng, size, scale)
        rows = case.method.task_gradients(net, other.meta, other.batch, trace=False).grad
        found = np.maximum(found, np.abs(case.mean(case.chain * rows) - case.truth))
    return found


def lost_in_float32(case):
    """(M,) the error of the gradient in float32, where no choice flips: the largest of
    TRIALS near by.

    Some digits are lost that no error of the inputs shows: where batch-norm subtracts a
    large mean, for example, a bias moves all values alike.
    """
    rng, lost = np.random.default_rng(1), np.zeros(len(case.meta))
    for _ in range(TRIALS):
        other = case.nearby(rng, NEARBY).rounded(np.float32)
        with np.errstate(all="ignore"), suppress(NonFiniteError):
            if not other.near_kink:
                meta = other.meta.astype(np.float32)
                batch = Batch(*other.batch.arrays, other.weights).astype(np.float32)
                single = other.chain * other.method.meta_gradient(other.net, meta, batch).grad
                lost = np.maximum(lost, np.abs(single - other.truth))
    return lost


def noise(case):
    """{name: how far the true gradient moves by one rounding of float64}.

    theta - phi_K (Reptile) also loses one rounding of theta.
    """
    return noise_from(case, moved(case, np.finfo(np.float64).eps), lost_in_float32(case))


def noise_from(case, moved, lost):
    """The same, from how far the gradient moves by one rounding of float64, (M,), and
    from what is lost in float32, (M,).
    """
    eps, single = np.finfo(np.float64).eps, np.finfo(np.float32).eps
    found = np.maximum(moved, eps / single * lost)
    least = 0.05 * eps * np.abs(case.truth).max()
    subtracted = np.zeros(len(case.meta))
    if entry(case.method).kind == DISPLACEMENT:
        subtracted = eps * np.abs(case.meta)
    return {
        name: max(
            found[place].max() + subtracted[place].max(),
            eps * np.abs(case.truth[place]).max(),
            least,
        )
        for name, place in case.places.items()
    }


def terms(case):
    """How many values are summed, one sum after another, on the way to one result.

    Over the fan-in going forward, over examples and positions for a weight's gradient,
    in every pass of the loop forward and backward."""
    b, (_, *rest) = case.batch, case.net.input_shape
    positions = int(np.prod(rest)) if rest else 1
    examples = max(b.x_support.shape[1], b.x_query.shape[1])
    fan_in = max(int(np.prod(shape[1:])) for shape in case.net.shapes.values())
    return 2 * (getattr(case.method, "inner_steps", 0) + 1) * max(fan_in, positions * examples)


def allowed(case):
    """(M,) how far each entry of a right gradient may be off by rounding alone, in the
    case's precision.

    `noise` is what one rounding of every input does. Sums of n values add sqrt(n)
    roundings when those are independent (Higham 2002, section 2.6). The noise of a
    tensor is the largest of its entries and of TRIALS; that is the margin for chance.
    On a user's net a whole channel may cancel; there, in float64, where any mistake is
    millions of roundings, CANCELLED roundings are allowed."""
    eps, out = np.finfo(case.dtype).eps, np.empty(len(case.meta))
    whole = np.abs(case.truth).max()
    least = CANCELLED * whole if case.own and case.dtype is np.float64 else 0
    for name, place in case.places.items():
        size = np.abs(case.truth[place]).max()
        roundings = max(case.noise[name] / np.finfo(np.float64).eps, least)
        by_rounding = np.sqrt(terms(case)) * eps * roundings
        out[place] = by_rounding if case.tol is None or size == 0 else case.tol * size
    return out


def margin(case):
    """The relative distance of the nearest kink to any pass, inner loop or query."""
    found = [
        net_margin(case.net, phi, x)
        for phi in case.outcome.trace.get("phi", [case.theta[None]])
        for x in (case.batch.x_support, case.batch.x_query)
    ]
    return min(*found, encoder_margin(case))


def near_kink(case):
    """Whether rounding in the case's precision may flip a choice."""
    return case.margin < KINK * np.finfo(case.dtype).eps


def flip(case):
    """What flipped choices change at most, in multiples of what rounding allows, >= 1.

    Inputs that are 0 are moved as well: a blank image has its kinks at 0.
    """
    size = 2 * KINK * np.finfo(case.dtype).eps
    off = moved(case, size, scale=lambda a: np.abs(a).max())
    return max(1.0, float((off / case.allowed).max()))


def relative_allowance(case):
    """The largest relative error that rounding allows in a tensor, among tensors that
    are not themselves rounding; 0 where `tol` says what is allowed."""
    if case.tol is not None:
        return 0.0
    whole = np.abs(case.truth).max()
    sizes = {name: np.abs(case.truth[place]).max() for name, place in case.places.items()}
    parts = [
        case.allowed[case.places[name]].max() / size
        for name, size in sizes.items()
        if size > 1e-3 * whole
    ]
    return max(parts, default=0.0)


# ---- perturbations -------------------------------------------------------------------


def perturbation(rng, size, scale):
    """A function of an array a: its real numbers off by up to `size` scale(a)."""
    return lambda a: a + size * scale(a) * rng.uniform(-1, 1, a.shape) if a.dtype.kind == "f" else a


def perturbed_loss(loss, perturb):
    """A cross-entropy with probabilities perturbed before labels are subtracted."""

    def forward(self, k, z, labels):
        value, saved = type(loss).forward(self, k, z, labels)
        return value, saved._replace(p=perturb(saved.p))

    kind = type(f"Perturbed{type(loss).__name__}", (type(loss),), {"forward": forward})
    return kind(**{f.name: getattr(loss, f.name) for f in fields(loss)})


def perturbed_probabilities(net, perturb):
    """The net with the probabilities of its cross-entropy perturbed.

    Where a probability is 1 to many digits, p - 1 has lost digits that no error of the
    inputs shows. The targets of a squared error are inputs themselves, and no other
    loss subtracts a probability from 1.
    """
    if not isinstance(net.loss_function, CrossEntropy):
        return net
    return net.with_loss(perturbed_loss(net.loss_function, perturb))
