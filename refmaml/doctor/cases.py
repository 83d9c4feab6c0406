"""A case: a net, a method, meta-parameters and tasks, with the true meta-gradient in
float64 and how exactly it can be known."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor import conditioning
from refmaml.doctor.frameworks import arguments_of
from refmaml.doctor.learned_through import derivative
from refmaml.doctor.method_table import IMPLICIT, NO_LOOP, PER_PARAMETER, SOLVED, entry
from refmaml.doctor.mistakes.parameters import of_own_net
from refmaml.doctor.solved_parameters import extra_places, extra_shapes, replaced

STEP_SIZE = "inner_lr."  # what the names of learned step sizes begin with


@dataclass(frozen=True, eq=False)
class Case:
    """name; net, method, meta (M,) as method.init makes it, batch.

    dtype   the precision in which the user's function computes
    given   the method as the user named it, where the case changed its step size or
            regularization; None: the same as `method`
    own     whether it is the user's own net: the function implements it, and knows its
            step sizes
    tol     a tensor's largest allowed error, relative to its largest entry; None: what
            rounding allows
    like    a case that differs by rounding only, whose conditioning is used
    step_factors        the function's own factors on the step size of each step, where
                        it sees a single `inner_lr`; None: it has none
    task_weights        T -> (T,), the weights w_t in M = (1/T) sum_t w_t M_t; None: 1
                        each
    step_sizes_through  what function of the learned number a step size is: see
                        learned_through.py; "": the number itself
    constant  patterns of parameters that are not meta-learned: their gradient is 0,
            and may be None or missing
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
    step_factors: tuple | None = None
    task_weights: object = None
    step_sizes_through: object = ""
    constant: tuple = ()

    def rounded(self, dtype):
        """The same case with its numbers rounded to a precision.

        `truth` then is the float64 gradient at the rounded numbers.
        """
        if dtype is np.float64:
            return self

        def exact(a):
            return a.astype(dtype).astype(np.float64) if a.dtype.kind == "f" else a

        b = self.batch
        batch = Batch(*map(exact, (b.x_support, b.y_support, b.x_query, b.y_query)))
        return replace(self, dtype=dtype, meta=exact(self.meta), like=self, batch=batch)

    def with_(self, **changes):
        """The case with some fields replaced; conditioning is then measured again,
        unless only dtype or tol changed."""
        other = {"like": None} if set(changes) - {"dtype", "tol"} else {}
        return replace(self, **other, **changes)

    def nearby(self, rng, size, scale=np.abs):
        """The case with every input number a off by up to `size` scale(a).

        Targets stay in the range that the loss takes.
        """
        off, b = conditioning.perturbation(rng, size, scale), self.batch
        x, y, xq, yq = map(off, (b.x_support, b.y_support, b.x_query, b.y_query))
        nearest = getattr(self.net.loss_function, "nearest_targets", lambda targets: targets)
        batch = Batch(x, nearest(y), xq, nearest(yq))
        return self.with_(batch=batch, meta=off(self.meta))

    def scheduled(self, factors):
        """The case with a step size for each step, the method's times these factors."""
        lengths = tuple(c * self.method.inner_lr for c in factors[: self.method.inner_steps])
        method = replace(self.method, inner_lr=lengths)
        return self.with_(method=method, step_factors=tuple(factors))

    @property
    def shown_method(self):
        """The method that the user's function sees."""
        lengths = getattr(self.method, "inner_lr", None)
        if self.step_factors is None or not isinstance(lengths, tuple):
            return self.method
        return replace(self.method, inner_lr=lengths[0] / self.step_factors[0])

    # ---- the user's function ---------------------------------------------------------

    @property
    def own_loss(self):
        """Whether the loss is the user's own: see own_loss/case.py."""
        return False

    @property
    def more_mistakes(self):
        """[Mistake] that are possible here besides those of the method."""
        known = entry(self.method)
        has_loop = known.kind not in (IMPLICIT, NO_LOOP, SOLVED)
        return of_own_net(self) if self.own and has_loop else []

    def parts(self, value):
        """{"grad": value} where a returned value is a whole gradient, else None."""
        return None

    def named_gradient(self, value):
        """A returned gradient as {name: array} or a flat vector."""
        return value

    def arguments(self, lib, layout):
        """The Arguments of a call of the user's function."""
        return arguments_of(self, lib, layout)

    def scope(self):
        """What a call of the user's function needs around it."""
        return nullcontext()

    # ---- names -----------------------------------------------------------------------

    @property
    def theta(self):
        """The net's own parameters (P,)."""
        return self.meta[: self.net.num_params]

    @cached_property
    def shapes(self):
        """{name: shape} of the meta-parameters: the net's, then "inner_lr.<name>" for
        learned step sizes, in the array's shape (Meta-SGD) or one a step (K,)
        (MAML++); or those of solved_parameters.py."""
        extra = extra_shapes(self.method, self.net)
        if not extra and len(self.meta) > self.net.num_params:
            per_parameter = entry(self.method).step_sizes == PER_PARAMETER
            each = None if per_parameter else (self.method.inner_steps,)
            extra = {STEP_SIZE + name: each or shape for name, shape in self.net.shapes.items()}
        return {**self.net.shapes, **extra}

    @cached_property
    def places(self):
        """{name: indices into a meta vector, in the named array's shape}."""
        P, L = self.net.num_params, len(self.net.shapes)
        places = dict(self.net.named(np.arange(P)))
        extra = extra_places(self.method, self.net)
        if extra:
            return places | extra
        for j, name in enumerate(self.net.shapes if len(self.meta) > P else ()):
            if entry(self.method).step_sizes == PER_PARAMETER:
                places[STEP_SIZE + name] = P + places[name]
            else:
                places[STEP_SIZE + name] = P + j + L * np.arange(self.method.inner_steps)
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

    @cached_property
    def constant_names(self):
        """Names of the parameters that are declared as not meta-learned."""
        if not self.constant:
            return set()
        chosen = self.net.mask(self.constant)
        return {name for name, part in self.net.parameters.slices.items() if chosen[part].any()}

    @cached_property
    def learned(self):
        """1 where an entry of the meta vector is meta-learned, 0 elsewhere, (M,)."""
        learned = np.ones(len(self.meta))
        for name in self.constant_names:
            learned[self.places[name]] = 0
        return learned

    @cached_property
    def structural_zeros(self):
        """Names whose gradient is 0 by definition, which may be missing from an answer:
        CAVIA's context, a head that is solved, step sizes of parameters that do not
        adapt, and what is declared as not meta-learned."""
        adapting = np.ones(self.net.num_params)
        if hasattr(self.method, "adapting"):
            adapting = self.method.adapting(self.net, self.theta)
        slices = self.net.parameters.slices
        still = {name for name, part in slices.items() if not adapting[part].any()}
        zeros = {STEP_SIZE + name for name in still} | self.constant_names
        if entry(self.method).kind == SOLVED:
            return zeros | replaced(self.method, self.net)
        return zeros | (set(self.net.shapes) - still if entry(self.method).context else set())

    # ---- the true gradient -----------------------------------------------------------

    @cached_property
    def outcome(self):
        """TaskGradients of the method itself, with its trace."""
        return self.method.task_gradients(self.net, self.meta, self.batch, trace=True)

    @property
    def rows(self):
        """The true meta-gradient of each task, (T, M)."""
        rows = self.outcome.grad * self.chain
        return rows * self.learned if self.constant else rows

    @cached_property
    def laplace_terms(self):
        """{which, and where: its gradient}: see laplace_variants.py."""
        return {}

    @cached_property
    def truth(self):
        """The true meta-gradient (M,), the mean over tasks."""
        return self.mean(self.rows)

    @cached_property
    def weights(self):
        """(T,) the weights of the tasks, or None for 1 each."""
        return None if self.task_weights is None else self.task_weights(len(self.batch))

    def mean(self, rows):
        """(1/T) sum_t w_t rows[t], (M,)."""
        return (rows if self.weights is None else self.weights[:, None] * rows).mean(axis=0)

    @cached_property
    def chain(self):
        """(M,) d(step size)/d(what is learned) for learned step sizes, 1 elsewhere."""
        P = self.net.num_params
        return np.concatenate([np.ones(P), derivative(self.step_sizes_through, self.meta[P:])])

    # ---- how exactly it can be known: see conditioning.py ----------------------------

    conditioning = conditioning

    @cached_property
    def noise(self):
        """{name: how far the true gradient moves by one rounding of float64}."""
        return self.conditioning.noise(self) if self.like is None else self.like.noise

    @cached_property
    def allowed(self):
        """(M,) how far each entry of a right gradient may be off."""
        return self.conditioning.allowed(self)

    @cached_property
    def margin(self):
        """The relative distance of the nearest kink."""
        return conditioning.margin(self)

    @property
    def near_kink(self):
        """Whether rounding may flip a choice."""
        return conditioning.near_kink(self)

    @cached_property
    def flip(self):
        """What flipped choices change at most, in multiples of `allowed`, >= 1."""
        return conditioning.flip(self)

    @cached_property
    def relative_allowance(self):
        """The largest relative error of a tensor that rounding allows."""
        return conditioning.relative_allowance(self)

    # ---- what a wrong factor may be made of ------------------------------------------

    @cached_property
    def symbols(self):
        """{symbol: value} of the quantities in scale_factors.MEANING, where not 1."""
        b, out = self.batch, self.net.output_shape(self.net.input_shape)[0]
        found = {"B": len(b), "N": b.x_support.shape[1], "M": b.x_query.shape[1], "C": out}
        kind = entry(self.method).kind
        if kind == IMPLICIT:
            found["lambda"] = self.method.regularization
        elif hasattr(self.method, "inner_steps"):
            found |= {"K": self.method.inner_steps}
            if not isinstance(self.method.inner_lr, tuple):
                found |= {"alpha": self.method.inner_lr}
        return {name: float(value) for name, value in found.items() if value != 1}
