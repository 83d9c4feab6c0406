"""The stages that a function returned beside its gradient, compared one by one."""

import numpy as np

from refmaml.doctor.findings import Finding
from refmaml.update_rules import UpdateRule

TITLES = {
    "inner_grad": "inner gradient",
    "phi": "adapted parameters",
    "adapted": "adapted parameters",
    "loss": "query loss",
    "query_grad": "query gradient",
    "hvp": "Hessian-vector product",
}  # in the order in which one stage depends on the one before
MARGIN = 100.0  # how many times what rounding allows in the gradient a stage may be off


def compare_stages(case, answer):
    """[Finding] of the first returned stage that is wrong; [] where none is."""
    bound = MARGIN * float((case.allowed / np.abs(case.truth).max()).max())
    expected = reference_stages(case)
    for name in TITLES:
        if name in answer.stages and expected[name] is not None:
            compare = compare_loss if name == "loss" else compare_stage
            finding = compare(case, name, answer.stages[name], expected[name], bound)
            if finding:
                return [finding]
    return []


def reference_stages(case):
    """{stage: refmaml's own values}; None for a stage that the method does not have.

    With an update rule a product's vector depends on how the function is written.
    """
    trace, b = case.outcome.trace, case.batch
    phis, rule = trace.get("phi", []), getattr(case.method, "rule", UpdateRule())
    query = None
    if phis:
        query = [case.net.primal(phis[-1], b.x_query, b.y_query, keep=False).grad]
    return {
        "inner_grad": trace.get("inner_grad"),
        "phi": phis[1:],
        "adapted": phis[-1:],
        "hvp": trace.get("hvp") if rule.plain else None,
        "loss": case.outcome.loss,
        "query_grad": query,
    }


def compare_loss(case, name, value, expected, bound):
    """A Finding if the loss, its mean or one a task, is off."""
    wanted = expected if value.size > 1 else expected.mean()
    if value.size not in (1, len(expected)):
        text = f"loss: expected a number or {len(expected)}, got shape {value.shape}"
        return Finding(TITLES[name], "", text)
    error = np.abs(value.reshape(np.shape(wanted)) - wanted).max() / np.abs(wanted).max()
    if error <= bound:
        return None
    return Finding(TITLES[name], "", f"the query loss after adaptation is off by {error:.1e}")


def compare_stage(case, name, value, expected, bound):
    """A Finding for the first step and tensor of a stage that is off."""
    title = TITLES[name]
    if len(value) != len(expected):
        return Finding(title, "", f"{name}: expected {len(expected)} steps, got {len(value)}")
    for k, (wanted, got) in enumerate(zip(expected, value, strict=True)):
        whole = max(np.abs(wanted).max(), 1e-300)
        for tensor, part in case.net.parameters.slices.items():
            error = np.abs(got[:, part] - wanted[:, part]).max() / whole
            if error > bound:
                step = f", inner step {k + (name == 'phi')}" if len(expected) > 1 else ""
                text = f"the first stage that is wrong is the {title}{step}, in {tensor}"
                return Finding(title, tensor, f"{text}: off by {error:.1e}")
    return None
