"""Returned stages of methods without an inner loop of their own, beside refmaml's
values."""

import numpy as np

from refmaml.doctor.findings import Finding

TITLES = {"adapted": "adapted parameters", "loss": "query loss", "query_grad": "query gradient"}


def compare_with_truth(case, stages, bound):
    """[Finding] of the first returned stage that is not refmaml's own."""
    for name, expected in reference_stages(case).items():
        if name not in stages or expected is None:
            continue
        value = stages[name] if name == "loss" else stages[name][-1]
        wanted = expected.mean() if value.size == 1 else expected
        if value.shape != np.shape(wanted) and value.size != 1:
            text = f"{name}: expected shape {np.shape(wanted)}, got {value.shape}"
            return [Finding(TITLES[name], "", text)]
        error = np.abs(value - wanted).max() / max(np.abs(wanted).max(), 1e-300)
        if error > bound:
            text = f"the first stage that is wrong is the {TITLES[name]}: off by {error:.1e}"
            return [Finding(TITLES[name], "", text)]
    return []


def reference_stages(case):
    """{stage: refmaml's own values}; None for a stage that the method does not have."""
    phis, b = case.outcome.trace.get("phi", []), case.batch
    query = None
    if phis:
        query = case.net.primal(phis[-1], b.x_query, b.y_query, keep=False).grad
    return {"adapted": phis[-1] if phis else None, "loss": case.outcome.loss, "query_grad": query}
