"""Adagrad: the gradient over the root of the sum of its squares."""

from dataclasses import dataclass

from refmaml.arguments import check_not_negative
from refmaml.update_rules.common import check_eps, inner, root_adjoint, total
from refmaml.update_rules.rule import Pullback, UpdateRule


@dataclass(frozen=True)
class Adagrad(UpdateRule):
    """h = g + wd phi;  v' = v + h^2, v = initial_accumulator_value at first;
    d = c h / (sqrt(v' + eps_root) + eps),  c = 1 / (1 + (t - 1) lr_decay).

    lr_decay, weight_decay (wd), initial_accumulator_value, eps: as torch.optim.Adagrad
    eps_root  inside the root; 0 in PyTorch
    Raises ArgumentError for numbers < 0, and for eps = eps_root = 0.
    Source: Duchi, Hazan, Singer 2011, Figure 1, in PyTorch's form.

    The adjoint, with D = r + eps, r the root:

        dD = -c dd h / D^2      dv' = sig + dD / (2 r)      dv = dv'
        gam = c dd / D + 2 h dv'                            dphi = wd gam
        dM/dlr_decay += -(t - 1) c^2 <dd, h / D>            dM/dwd += <gam, phi>
        dM/deps += <dD, 1>      dM/deps_root += <dD / (2 r), 1>
        dM/dinitial_accumulator_value = <dv, 1> of the first step
    """

    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10
    eps_root: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(
            lr_decay=self.lr_decay,
            weight_decay=self.weight_decay,
            initial_accumulator_value=self.initial_accumulator_value,
        )
        check_eps(self.eps, self.eps_root)

    def init(self, phi):
        return {"v": 0 * phi + self.initial_accumulator_value}

    def factors(self, t):
        """(c,)."""
        return (1 / (1 + (t - 1) * self.lr_decay),)

    def sums(self, net, phi, g, state):
        """(h, v', r, D) of a step."""
        h = g + self.weight_decay * phi if self.weight_decay else g
        v = state["v"] + h * h
        r = net.kernels.xp.sqrt(v + self.eps_root)
        return h, v, r, r + self.eps

    def direction(self, net, phi, g, state, factors):
        h, v, _, D = self.sums(net, phi, g, state)
        return factors[0] * h / D, {"v": v}

    def adjoints(self, net, dd, dstate, phi, g, state, factors):
        """(gam, dv', dD, du) of a step."""
        (c,), (h, _, r, D) = factors, self.sums(net, phi, g, state)
        dD = -c * dd * h / (D * D)
        du = root_adjoint(net, dD, r, self)
        dv = dstate.get("v", 0) + du
        return c * dd / D + 2 * h * dv, dv, dD, du

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        gam, dv, _, _ = self.adjoints(net, dd, dstate, phi, g, state, factors)
        return Pullback(gam, {"v": dv}, self.weight_decay * gam)

    def hypergradients(self, net, dd, dstate, phi, g, state, t):
        factors = self.factors(t)
        gam, dv, dD, du = self.adjoints(net, dd, dstate, phi, g, state, factors)
        h, _, _, D = self.sums(net, phi, g, state)
        return {
            "lr_decay": -(t - 1) * factors[0] ** 2 * inner(dd, h / D),
            "weight_decay": inner(gam, phi),
            "initial_accumulator_value": total(dv) * (t == 1),
            "eps": total(dD),
            "eps_root": total(du),
        }
