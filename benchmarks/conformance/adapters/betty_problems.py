"""betty: a lower and an upper problem run by its Engine.

Its configuration chooses the best-response Jacobian.

The lower problem starts from the upper one's parameters, solves the proximal problem by
SGD, and betty differentiates; the upper problem's optimiser step takes the gradient it
would move by, and moves nothing.
"""

import logging

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.problems import ImplicitProblem, IterativeProblem

from adapters.library import Library
from adapters.torch_common import Probe, by_task

STEPS = 150
logging.disable(logging.INFO)  # otherwise it prints a page for each problem


class Upper(ImplicitProblem):
    """min over theta of g(phi*)."""

    def training_step(self, batch):
        return self.inner(*batch)

    def get_batch(self):
        return self.query

    def custom_optimizer_step(self):
        self.found = [
            torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for p in self.trainable_parameters()
        ]


class Lower(ImplicitProblem):
    """min over phi of f(phi) + lambda/2 |phi - theta|^2, from phi = theta."""

    def training_step(self, batch):
        distance = sum(
            ((a - b) ** 2).sum()
            for a, b in zip(self.module.parameters(), self.outer.module.parameters(), strict=True)
        )
        return self.module(*batch) + self.strength / 2 * distance

    def get_batch(self):
        return self.support


class Steps(IterativeProblem):
    """K steps of SGD on f from theta, each kept for differentiation."""

    def training_step(self, batch):
        return self.fmodule(self.params, self.buffers, *batch)

    def forward(self, *batch):
        return self.fmodule(self.params, self.buffers, *batch)

    def get_batch(self):
        return self.support

    def on_inner_loop_start(self):
        self.params = tuple(p.clone() for p in self.outer.module.parameters())


def run(problem, params, task, lower, config, first_order):
    """The gradient that betty passes to the upper problem's optimiser.

    It runs config.unroll_steps steps of the lower problem before that.

    first_order  betty's option: whether the lower problem's steps are left out of the
                 graph, and its Jacobian approximated instead
    """
    theta, phi = Probe(problem, params), Probe(problem, params)
    outer = Upper(
        "outer",
        Config(first_order=first_order, retain_graph=True),
        theta,
        torch.optim.SGD(theta.parameters(), lr=0.0),
    )
    inner = lower(
        "inner", config, phi, torch.optim.SGD(phi.parameters(), lr=problem.method.inner_lr)
    )
    inner.support, outer.query, inner.strength = (
        task[:2],
        task[2:],
        getattr(problem.method, "regularization", 0.0),
    )
    Engine(
        [outer, inner],
        EngineConfig(train_iters=config.unroll_steps),
        {"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
    ).run()
    return dict(zip(theta.own, outer.found, strict=True))


def implicit(**how):
    def one_task(problem, params, *task):
        # neumann_alpha times the Hessian of f + lambda/2 |.|^2 must be below 2
        alpha = (
            {"neumann_alpha": 1 / problem.method.regularization} if how["type"] == "neumann" else {}
        )
        return run(
            problem,
            params,
            task,
            Lower,
            Config(unroll_steps=STEPS, **how, **alpha),
            first_order=True,
        )

    return by_task(one_task)


@by_task
def maml(problem, params, *task):
    return run(
        problem,
        params,
        task,
        Steps,
        Config(unroll_steps=problem.method.inner_steps, retain_graph=True),
        first_order=False,
    )


LIBRARY = Library(
    "betty",
    "betty",
    ("betty-ml", "torch"),
    "torch",
    {
        "MAML": maml,
        "iMAML": implicit(type="cg", cg_iterations=60),
        "iMAML (neumann)": implicit(type="neumann", neumann_iterations=100),
        "iMAML (cg_alpha = 0.5)": implicit(type="cg", cg_iterations=60, cg_alpha=0.5),
        "iMAML (darts)": implicit(type="darts"),
    },
    {
        "first-order MAML": "no such switch",
        "ANIL": "as MAML",
        "Meta-SGD": "one learning rate for all parameters",
        "Reptile": "no method of its own",
    },
)
