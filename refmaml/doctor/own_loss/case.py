"""A case of the user's own: loss, parameters and batch as the user has them."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refmaml.doctor.cases import STEP_SIZE, Case
from refmaml.doctor.frameworks import Arguments
from refmaml.doctor.method_table import IMPLICIT, entry
from refmaml.doctor.own_loss import conditioning
from refmaml.doctor.own_loss.batch_forms import user_batch
from refmaml.doctor.own_loss.mistakes import own_mistakes
from refmaml.doctor.own_loss.trees import is_float, tree_of
from refmaml.doctor.problem import Problem
from refmaml.errors import expect


@dataclass(frozen=True, eq=False)
class OwnLossCase(Case):
    """net is a LossModel, batch an OwnBatch.

    wrong_product   what is wrong with the framework's product, or "": see
                    second_derivatives.py
    """

    own: bool = True
    wrong_product: str = ""

    def rounded(self, dtype):
        """The same case with its numbers rounded to a precision."""
        if dtype is np.float64:
            return self

        def exact(a):
            return a.astype(dtype).astype(np.float64) if is_float(a) else a

        batch = self.batch.mapped(exact)
        return replace(self, dtype=dtype, meta=exact(self.meta), like=self, batch=batch)

    def nearby(self, rng, size, scale=np.abs):
        """The case with other parameters and, of several tasks, the second in the place
        of the first. Inputs stay: what values the loss takes there is not known."""
        tasks = self.batch.tasks
        batch = self.batch.with_tasks([tasks[min(1, len(tasks) - 1)], *tasks[1:]])
        return self.with_(meta=self.moved_meta(rng, size, scale), batch=batch)

    def moved_meta(self, rng, size, scale=np.abs):
        """The meta-parameters, each off by up to `size` times its scale."""
        return self.meta + size * scale(self.meta) * rng.uniform(-1, 1, self.meta.shape)

    # ---- how exactly the truth can be known: see conditioning.py ---------------------

    conditioning = conditioning

    @property
    def margin(self):
        """Not known: where a loss has kinks shows by `flip` alone."""
        return np.nan

    @cached_property
    def jump(self):
        """How far the gradient moves near by: see conditioning.jump."""
        return conditioning.jump(self)

    @property
    def near_kink(self):
        return self.jump > conditioning.FLIPPING

    @property
    def flip(self):
        return max(1.0, self.jump)

    # ---- names -----------------------------------------------------------------------

    @property
    def own_loss(self):
        return True

    @cached_property
    def symbols(self):
        found, examples = {"B": len(self.batch)}, self.batch.x_support.shape[1]
        found |= {"N": examples} if examples else {}
        queries = self.batch.x_query.shape[1]
        found |= {"M": queries} if queries else {}
        method = self.method
        if entry(method).kind == IMPLICIT:
            found["lambda"] = method.regularization
        elif hasattr(method, "inner_steps"):
            found["K"] = method.inner_steps
            if not isinstance(method.inner_lr, tuple):
                found["alpha"] = method.inner_lr
        return {name: float(value) for name, value in found.items() if value != 1}

    @property
    def more_mistakes(self):
        return own_mistakes(self)

    def parts(self, value):
        """{"grad": value} of a tuple or list that is the gradient as a whole: a pytree,
        or one array after another as torch.autograd.grad returns them."""
        if not isinstance(value, list | tuple):
            return None
        leaves = tree_of(value, self.net.parameters.framework).leaves
        shapes = [tuple(getattr(leaf, "shape", (-1,))) for leaf in leaves]
        return {"grad": value} if shapes == list(self.shapes.values()) else None

    def named_gradient(self, value):
        """{name: array} of a gradient in the structure of params, or in their order."""
        if hasattr(value, "shape"):
            return value
        tree = tree_of(value, self.net.parameters.framework)
        names = [name or "params" for name in tree.names]
        if set(names) != set(self.shapes) and self.parts(value):
            names = list(self.shapes)
        return dict(zip(names, tree.leaves, strict=True))

    # ---- the user's function ---------------------------------------------------------

    def arguments(self, lib, layout):
        """The Arguments of a call of the user's function: fresh copies."""
        functions, parameters = self.net.functions, self.net.parameters
        convert = functions.to_user(self.dtype)
        P, meta = self.net.num_params, self.meta.astype(self.dtype)
        params = parameters.user([convert(np.array(a)) for a in parameters.arrays(meta[:P])])
        params = self.with_step_sizes(params, meta, convert)
        batch, leaves = user_batch(self.batch, convert)
        inputs = {name: arrays for name, arrays in leaves.items()}
        inputs["params"] = tree_of(params, parameters.framework).leaves
        loss = functions.loss
        problem = Problem(self.name, self.shown_method, self.net, lib.name, loss)
        return Arguments(problem, params, batch, inputs)

    def with_step_sizes(self, params, meta, convert):
        """The params with learned step sizes, where the method has them, under
        "inner_lr": beside the names of a flat dict, or in the structure of params."""
        if len(meta) == self.net.num_params:
            return params
        named = {n: a for n, a in self.named(meta).items() if n not in self.net.shapes}
        expect(isinstance(params, dict), "params", "a dict, for learned step sizes", "others")
        if all(name in params for name in self.net.shapes):
            return {**params, **{n: convert(np.array(a)) for n, a in named.items()}}
        rates = all(n.startswith(STEP_SIZE) for n in named)
        expect(rates, "params", "a flat dict of arrays, for learned matrices", "another structure")
        arrays = [convert(np.array(named[STEP_SIZE + n])) for n in self.net.shapes]
        return {**params, STEP_SIZE[:-1]: self.net.parameters.user(arrays)}

    @contextmanager
    def scope(self):
        """What a call of the user's function needs around it."""
        with self.net.functions.around_call(self.dtype):
            yield
