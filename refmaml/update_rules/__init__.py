"""Update rules of the inner loop, each with its adjoint: see rule.py.

Names, defaults and conventions are those of torch.optim. The step size is the
method's `inner_lr`, not the rule's.
"""

from refmaml.update_rules.adagrad import Adagrad
from refmaml.update_rules.adam import Adam, AdamW
from refmaml.update_rules.clip import Clip
from refmaml.update_rules.rmsprop import RMSprop
from refmaml.update_rules.rule import UpdateRule
from refmaml.update_rules.sgd import SGD
from refmaml.update_rules.sign import Sign

__all__ = ["UpdateRule", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Clip", "Sign"]
