"""A case: a net, a method, meta-parameters and tasks, with the true meta-gradient in float64 and how exactly it can be known."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import NonFiniteError
from refmaml.layers import CrossEntropy
from refmaml.methods import CAVIA, IMAML, MetaSGD, Reptile
from refmaml.oracles.kinks import net_margin

RATES = "inner_lr."  # what the names of learned step sizes begin with
TRIALS = 3  # perturbations by one rounding each that the conditioning is measured with
KINK = 30  # roundings from which a choice may be flipped
NEARBY = 0.01  # by so much inputs differ where float32 is tried: each time other roundings, the same cancellations
CANCELLED = 1000  # roundings of the whole gradient in what cancels: batch-norm divides a constant channel by sqrt(1e-5)


@dataclass(frozen=True, eq=False)
class Case:
    """name; net, method, meta (M,) as method.init makes it, batch; dtype: the precision the user's function computes in.

    given the method as the user named it, whose step size or regularization the probe has changed; None: this one
    own   the user's own net: the function implements it, and knows its step sizes
    like  a case that differs by rounding only, whose conditioning is this one's
    tol   what a tensor's largest error may be, relative to its largest entry, where somebody says so; None: what rounding allows
    """

    name: str
    net: object
    method: object
    meta: np.ndarray
    batch: Batch
    dtype: type = np.float64
    given: object = None
    own: bool = False
    tol: float | None = None
    like: object = None

    def rounded(self, dtype):
        """The same case in another precision: numbers rounded to it; the truth stays the float64 gradient at those numbers."""

        def exact(a):
            return a.astype(dtype).astype(np.float64) if a.dtype.kind == "f" else a

        b = self.batch
        if dtype is np.float64:
            return self
        return replace(
            self,
            dtype=dtype,
            meta=exact(self.meta),
            like=self,
            batch=Batch(*map(exact, (b.x_support, b.y_support, b.x_query, b.y_query))),
        )

    def with_(self, **changes):
        """The same case with some fields exchanged; in another one, conditioning is measured anew."""
        return replace(
            self, **({"like": None} if set(changes) - {"dtype", "tol"} else {}), **changes
        )

    # ---- names ---------------------------------------------------------------------------------------------------------

    @property
    def theta(self):
        """The net's own parameters (P,)."""
        return self.meta[: self.net.num_params]

    @cached_property
    def shapes(self):
        """{name: shape} of the meta-parameters: the net's, then "inner_lr.<name>" for learned step sizes, in the array's shape
        (Meta-SGD) or one for each step (K,) (MAML++)."""
        extra = {}
        if len(self.meta) > self.net.num_params:
            each = None if isinstance(self.method, MetaSGD) else (self.method.inner_steps,)
            extra = {RATES + name: each or shape for name, shape in self.net.shapes.items()}
        return {**self.net.shapes, **extra}

    @cached_property
    def places(self):
        """{name: indices into a meta vector, in the named array's shape}."""
        P, L = self.net.num_params, len(self.net.shapes)
        places = dict(self.net.named(np.arange(P)))
        for j, name in enumerate(self.net.shapes if len(self.meta) > P else ()):
            if isinstance(self.method, MetaSGD):
                places[RATES + name] = P + places[name]
            else:
                places[RATES + name] = P + j + L * np.arange(self.method.inner_steps)
        return places

    def named(self, vector):
        """{name: array} of a meta vector (M,)."""
        return {name: vector[place] for name, place in self.places.items()}

    def flat(self, named):
        """The meta vector (M,) of named arrays."""
        out = np.empty(len(self.meta))
        for name, place in self.places.items():
            out[place] = named[name]
        return out

    # ---- the truth -----------------------------------------------------------------------------------------------------

    @cached_property
    def outcome(self):
        """TaskGradients of the method itself, with its trace."""
        return self.method.task_gradients(self.net, self.meta, self.batch, trace=True)

    @property
    def rows(self):
        """The true meta-gradient of each task, (T, M)."""
        return self.outcome.grad

    @cached_property
    def truth(self):
        """The true meta-gradient (M,), the mean over tasks."""
        return self.rows.mean(axis=0)

    @cached_property
    def structural_zeros(self):
        """Names whose gradient is 0 by definition, so that nobody need return them: CAVIA's context, rates of what does not adapt."""
        moves = (
            self.method.adapting(self.net, self.theta)
            if hasattr(self.method, "adapting")
            else np.ones(self.net.num_params)
        )
        still = {name for name, part in self.net.parameters.slices.items() if not moves[part].any()}
        zeros = {RATES + name for name in still}
        return zeros | (set(self.net.shapes) - still if isinstance(self.method, CAVIA) else set())

    def nearby(self, rng, size, scale=np.abs):
        """The same case with every input number a off by `size` scale(a) at most."""
        off, b = jitter(rng, size, scale), self.batch
        return self.with_(
            batch=Batch(*map(off, (b.x_support, b.y_support, b.x_query, b.y_query))),
            meta=off(self.meta),
        )

    def moved(self, size, scale=np.abs):
        """(M,) by how much the truth moves when every input number a, and every probability, is off by `size` scale(a) at most: the largest
        of TRIALS."""
        rng, moved = np.random.default_rng(0), np.zeros(len(self.meta))
        net = with_probabilities_off(self.net, jitter(rng, size, scale))
        for _ in range(TRIALS):
            there = self.nearby(rng, size, scale)
            other = self.method.task_gradients(net, there.meta, there.batch, trace=False).grad.mean(
                axis=0
            )
            moved = np.maximum(moved, np.abs(other - self.truth))
        return moved

    def lost(self):
        """(M,) what float32 loses of the gradient on the way: the most of TRIALS near by, where it flips no choice. Where batch-norm takes
        a large mean off, say, digits are lost that no error of the inputs shows: a bias moves all alike."""
        rng, lost = np.random.default_rng(1), np.zeros(len(self.meta))
        for _ in range(TRIALS):
            there = self.nearby(rng, NEARBY).rounded(np.float32)
            with np.errstate(all="ignore"), suppress(NonFiniteError):
                if not there.near_kink:
                    single = there.method.meta_gradient(
                        there.net, there.meta.astype(np.float32), there.batch.astype(np.float32)
                    ).grad
                    lost = np.maximum(lost, np.abs(single - there.truth))
        return lost

    @cached_property
    def noise(self):
        """{name: by how much the truth moves when every input number is off by one rounding of float64, or what is lost on the way}: its
        conditioning."""
        if self.like is not None:
            return self.like.noise
        eps, single = np.finfo(np.float64).eps, np.finfo(np.float32).eps
        moved = np.maximum(self.moved(eps), eps / single * self.lost())
        least = 0.05 * eps * np.abs(self.truth).max()
        taken_off = (
            eps * np.abs(self.meta)
            if isinstance(self.method, Reptile)
            else np.zeros(len(self.meta))
        )  # theta - phi_K
        return {
            name: max(
                moved[place].max() + taken_off[place].max(),
                eps * np.abs(self.truth[place]).max(),
                least,
            )
            for name, place in self.places.items()
        }

    @property
    def terms(self):
        """How many values are summed, one sum after another, on the way to one result: over the fan-in going forward, over examples and
        positions for a weight's gradient, in every pass of the loop there and back."""
        b, (_, *rest) = self.batch, self.net.input_shape
        positions = int(np.prod(rest)) if rest else 1
        examples = max(b.x_support.shape[1], b.x_query.shape[1])
        fan_in = max(int(np.prod(shape[1:])) for shape in self.net.shapes.values())
        return 2 * (getattr(self.method, "inner_steps", 0) + 1) * max(fan_in, positions * examples)

    @cached_property
    def allowed(self):
        """(M,) how far each entry of a correct gradient may be off, by rounding alone, in the precision computed in.

        `noise` is what one rounding of every input does. Sums of n values add sqrt(n) roundings when those are independent (Higham 2002,
        section 2.6); it is the largest of its tensor's entries and of TRIALS, which is the room for chance. A user's net may be such that
        all of a channel cancels; there, in float64, where any mistake is millions of roundings, CANCELLED are allowed.
        """
        eps, out = np.finfo(self.dtype).eps, np.empty(len(self.meta))
        least = CANCELLED * np.abs(self.truth).max() if self.own and self.dtype is np.float64 else 0
        for name, place in self.places.items():
            size, roundings = (
                np.abs(self.truth[place]).max(),
                max(self.noise[name] / np.finfo(np.float64).eps, least),
            )
            out[place] = (
                np.sqrt(self.terms) * eps * roundings
                if self.tol is None or size == 0
                else self.tol * size
            )
        return out

    @cached_property
    def margin(self):
        """The relative distance of the nearest kink to any pass of the inner loop or the query."""
        phis = [phi for phi in self.outcome.trace.get("phi", [self.theta[None]])]
        return min(
            min(
                net_margin(self.net, phi, self.batch.x_support),
                net_margin(self.net, phi, self.batch.x_query),
            )
            for phi in phis
        )

    @property
    def near_kink(self):
        """Whether rounding in the precision computed in may flip a choice."""
        return self.margin < KINK * np.finfo(self.dtype).eps

    @cached_property
    def flip(self):
        """max of what choices that rounding may flip were seen to do, in multiples of what rounding itself allows; 1 at least. Zeros move
        too: a blank image has its kinks at 0."""
        moved = self.moved(2 * KINK * np.finfo(self.dtype).eps, scale=lambda a: np.abs(a).max())
        return max(1.0, float((moved / self.allowed).max()))

    @cached_property
    def blur(self):
        """The largest part of a tensor that rounding allows an error of, among tensors that are no rounding themselves; 0 where `tol` says
        what is allowed."""
        whole = np.abs(self.truth).max()
        sizes = {name: np.abs(self.truth[place]).max() for name, place in self.places.items()}
        return max(
            (
                self.allowed[self.places[name]].max() / size
                for name, size in sizes.items()
                if size > 1e-3 * whole and self.tol is None
            ),
            default=0.0,
        )

    # ---- what a scale may be ---------------------------------------------------------------------------------------------

    @cached_property
    def symbols(self):
        """{symbol: value} of what a stray factor may be made of."""
        b, out = self.batch, self.net.output_shape(self.net.input_shape)[0]
        found = {"B": len(b), "N": b.x_support.shape[1], "M": b.x_query.shape[1], "C": out}
        if hasattr(self.method, "inner_steps") and not isinstance(self.method, IMAML):
            found |= {"K": self.method.inner_steps, "alpha": self.method.inner_lr}
        if isinstance(self.method, IMAML):
            found["lambda"] = self.method.regularization
        return {name: float(value) for name, value in found.items() if value != 1}


MEANING = {
    "B": "the number of tasks",
    "N": "the number of support examples",
    "M": "the number of query examples",
    "C": "the number of outputs",
    "K": "the number of inner steps",
    "alpha": "the inner step size",
    "lambda": "the regularization",
}


def sharpness(net, theta, batch, moves, steps=10):
    """max over tasks of |H_f(theta)| on the parameters that move (1, or 0, for each), by power iteration."""
    primal = net.primal(theta[None], batch.x_support, batch.y_support)
    v = moves * np.random.default_rng(0).standard_normal((len(batch), net.num_params))
    for _ in range(steps):
        size = np.sqrt((v * v).sum(axis=1, keepdims=True))
        v = moves * net.hvp(primal, v / size)
    return float(np.sqrt((v * v).sum(axis=1)).max())


def jitter(rng, size, scale):
    """A function of an array a: its real numbers off by `size` scale(a) at most."""
    return lambda a: a + size * scale(a) * rng.uniform(-1, 1, a.shape) if a.dtype.kind == "f" else a


@dataclass(frozen=True)
class ProbabilitiesOff(CrossEntropy):
    """Cross-entropy whose probabilities are changed before they meet their labels."""

    off: object = None

    def forward(self, k, z, labels):
        loss, saved = super().forward(k, z, labels)
        return loss, saved._replace(p=self.off(saved.p))


def with_probabilities_off(net, off):
    """The net with its cross-entropy's probabilities off: where examples are known for sure, p - 1 has lost digits that no error of the
    inputs shows. A squared error's targets are inputs themselves."""
    if not isinstance(net.loss_function, CrossEntropy):
        return net
    return net.with_loss(ProbabilitiesOff(net.loss_function.reduction, off))
