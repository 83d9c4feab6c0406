"""The family of gradient-based meta-learning, one method a file; a diff of two files is the difference of two methods.

Every method is a frozen dataclass whose fields are its paper's symbols spelled out, and answers the same calls:

    meta = method.init(net, theta)                 its meta-parameters (M,): theta, then whatever else it learns (rates)
    phi  = method.adapt(net, meta, x, y)           adapted parameters (T, P), a row for each task
    out  = method.meta_gradient(net, meta, batch)  MetaGradient: loss, accuracy, grad (M,) = mean over tasks of dM_t/dmeta
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
