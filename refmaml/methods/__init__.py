"""Gradient-based meta-learning, one method in each file.

The difference of two files is the difference of two methods. Every method is a frozen
dataclass. Its fields have the names of its paper's symbols, spelled out. All methods
have the same functions:

    meta = method.init(net, theta)
    phi  = method.adapt(net, meta, x, y)
    out  = method.meta_gradient(net, meta, batch)

init           the meta-parameters (M,): theta, then whatever else the method learns,
               such as step sizes
adapt          the adapted parameters (T, P), one row for each task
meta_gradient  a MetaGradient: loss, accuracy, and grad (M,), the mean over tasks of
               dM_t/dmeta
"""

from refmaml.methods.anil import ANIL, FirstOrderANIL
from refmaml.methods.cavia import CAVIA
from refmaml.methods.conjugate_gradients import conjugate_gradients
from refmaml.methods.erm import ERM
from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.methods.imaml import IMAML
from refmaml.methods.maml import MAML
from refmaml.methods.maml_plus_plus import MAMLPlusPlus
from refmaml.methods.meta_gradient import MetaGradient
from refmaml.methods.meta_sgd import MetaSGD
from refmaml.methods.reptile import Reptile

__all__ = [
    "MAML",
    "FirstOrderMAML",
    "ANIL",
    "FirstOrderANIL",
    "ERM",
    "MetaSGD",
    "MAMLPlusPlus",
    "CAVIA",
    "Reptile",
    "IMAML",
    "MetaGradient",
    "conjugate_gradients",
]
