"""The table of update rules: its rows are rules, its columns libraries' optimizers."""

from importlib import import_module
from typing import NamedTuple

import refmaml as rm
from refmaml.oracles.method_checks import rule_text


class Column(NamedTuple):
    """One column: the Library `name` in the module of adapters, and what it imports."""

    module: str
    name: str
    needs: str

    @property
    def library(self):
        """The Library; its methods["MAML"] takes the rule of the problem's method."""
        return getattr(import_module(f"adapters.{self.module}"), self.name)


COLUMNS = {
    "higher": Column("higher_loop", "LIBRARY", "higher"),
    "TorchOpt": Column("torchopt_meta", "FLOAT64", "torchopt"),
    "TorchOpt, default dtype float32": Column("torchopt_meta", "FLOAT32", "torchopt"),
    "TorchOpt, use_accelerated_op": Column("torchopt_meta", "FUSED", "torchopt"),
    "optax": Column("optax_loop", "LIBRARY", "optax"),
}
RULES = {
    rule_text(rule): rule
    for rule in (
        rm.SGD(momentum=0.9),
        rm.SGD(momentum=0.9, nesterov=True),
        rm.RMSprop(0.9, eps=1e-2),
        rm.RMSprop(0.9, eps=1e-2, momentum=0.5),
        rm.Adam(),
        rm.Adam(eps=1e-3),
        rm.Adam(eps=1e-2),
        rm.Adam(eps_root=1e-8),
        rm.Adam(eps_root=1e-2),
        rm.AdamW(eps=1e-2, weight_decay=0.1),
    )
}
