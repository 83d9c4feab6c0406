"""Right functions of (params, batch) on a small net, with a change to their answer."""

import numpy as np

import refmaml as rm

METHOD = rm.MAML(0.1, 2)


def small_net():
    return rm.Sequential([rm.Linear(3, 4), rm.Softplus(), rm.Linear(4, 2)], rm.MSE(), (3,))


def implements(net, method, change=lambda named: named):
    """A right function of (params, batch), its answer passed through `change`."""

    def fn(params, batch):
        exact = {n: p.astype(np.float64) for n, p in params.items()}
        named = net.named(
            method.meta_gradient(net, net.flat(exact), rm.Batch(*batch).astype(np.float64)).grad
        )
        return change({n: named[n].astype(params[n].dtype) for n in params})

    return fn
