"""Wrong meta-gradients of MAML that the check of MAML must refuse."""

from dataclasses import replace

import numpy as np

from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.oracles.method_checks import meta_gradient_check


def first_order_of(method):
    """First-order MAML with the fields of a MAML."""
    return FirstOrderMAML(method.inner_lr, method.inner_steps, method.adapts, method.frozen)


def wrong_gradients(method, net):
    """{name: function (net, meta, batch) -> gradient} of wrong meta-gradients of MAML.

    Each has been published or shipped.
    """

    class StepByStep(type(net)):
        def unrolled(self, *args, **options):  # no whole-loop kernel: hvp is called
            return None

    class Doubled(StepByStep):
        def hvp(self, primal, v):
            return 2 * super().hvp(primal, v)

    class Flipped(StepByStep):
        def hvp(self, primal, v):
            return -super().hvp(primal, v)

    def on(kind):
        return kind(net.named_layers, net.loss_function, net.input_shape, net.kernels)

    def gradient_of(other, wrong_net=net):
        return lambda _, meta, batch: other.meta_gradient(wrong_net, meta, batch).grad

    return {
        "first-order gradient": gradient_of(first_order_of(method)),
        "H doubled": gradient_of(method, on(Doubled)),
        "H's sign flipped": gradient_of(method, on(Flipped)),
        "last step only": last_step_only(method),
        "summed over tasks": lambda net, meta, batch: (
            len(batch) * method.meta_gradient(net, meta, batch).grad
        ),
    }


def last_step_only(method):
    """The gradient through the last inner step only: the steps before are constants."""

    def gradient(net, meta, batch):
        first_steps = replace(method, inner_steps=method.inner_steps - 1)
        one_step = replace(method, inner_steps=1)
        phi = first_steps.adapt(net, meta, batch.x_support, batch.y_support)
        tasks = range(len(batch))
        return np.mean(
            [one_step.meta_gradient(net, phi[t], batch[t : t + 1]).grad for t in tasks], axis=0
        )

    return gradient


def planted_errors(method, net, theta, batch, truth):
    """{name: Check} of `wrong_gradients`: the check of MAML must refuse each."""
    return {
        name: meta_gradient_check(method, net, theta, batch, truth, candidate=f)
        for name, f in wrong_gradients(method, net).items()
    }
