"""What the user's function may return, and what is made of it.

A gradient: {name: array}, or one flat vector, name after name in the order of params (or in that of method.init, which differs for
MAML++). Alone; or (gradient, loss) or (gradient, loss, adapted); or a
dict or an object with `grad` and, if it likes, any of the STAGES, which tell where a wrong gradient went wrong:

    loss         the query loss after adaptation, its mean over tasks or one for each task (T,)
    inner_grad   [for each inner step: the gradients of the support loss]     {name: (T, ...)} or (T, P)
    adapted      phi_K; or phi: [phi_1 .. phi_K]                              {name: (T, ...)} or (T, P)
    query_grad   the query loss's gradient at phi_K                           {name: (T, ...)} or (T, P)
    hvp          [for each inner step k: H_f(phi_k) (A lam_{k+1})]            {name: (T, ...)} or (T, P)
"""

from dataclasses import dataclass, field

import numpy as np

from refmaml.doctor.frameworks import first_line, incoming
from refmaml.errors import ArgumentError, expect

STAGES = ("loss", "inner_grad", "phi", "adapted", "query_grad", "hvp")


@dataclass(frozen=True)
class Answer:
    """grad (M,) in our order and layout; dtype: what it came in; absent: names for which nothing (None) came;
    stages: whatever else came, by name, as lists over steps of arrays (T, P), or the loss as an array; unread: [(name, why)] of what came
    and is none of that: a gradient can be judged without."""

    grad: np.ndarray
    dtype: type
    absent: tuple = ()
    stages: dict = field(default_factory=dict)
    unread: tuple = ()


def read(value, case, layout):
    """The Answer in a returned value. Raises ArgumentError in one line for what is none."""
    expect(
        value is not None,
        "function",
        "a gradient for each parameter",
        "None (is there a return statement?)",
    )
    parts = pieces(value)
    grad, dtype, absent = gradient(parts.pop("grad"), case, layout)
    stages, unread = {}, []
    for name, part in parts.items():
        if part is not None:
            try:
                stages[name] = stage(name, part, case, layout)
            except ArgumentError:
                raise
            except Exception as error:  # no arrays at all, as a dict of metrics
                unread.append((name, first_line(error)))
    return Answer(grad, dtype, absent, stages, tuple(unread))


def pieces(value):
    """{"grad": ..., stage: ...} of what was returned."""
    if hasattr(value, "shape"):
        return {"grad": value}
    if isinstance(value, dict):
        return (
            {k: v for k, v in value.items() if k in ("grad", *STAGES)}
            if "grad" in value
            else {"grad": value}
        )
    if hasattr(value, "grad"):
        found = {name: getattr(value, name, None) for name in STAGES}
        trace = getattr(value, "trace", None)
        return {
            "grad": value.grad,
            **{k: v for k, v in found.items() if v is not None},
            **(from_trace(trace) if trace else {}),
        }
    expect(
        isinstance(value, (tuple, list)) and len(value) in (2, 3),
        "function",
        "{name: gradient}, a flat vector, (gradient, loss), (gradient, loss, adapted), or an object with grad",
        lambda: described(value),
    )
    return dict(zip(("grad", "loss", "adapted"), value, strict=False))


def from_trace(trace):
    """The stages in a refmaml trace."""
    return {
        **({"phi": trace["phi"][1:]} if "phi" in trace else {}),
        **{name: trace[name] for name in ("inner_grad", "hvp") if name in trace},
    }


def described(value):
    """A value in a few words."""
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"


def gradient(value, case, layout):
    """(grad (M,), dtype, names that came as None) of a dict or a flat vector."""
    if hasattr(value, "shape"):
        flat = incoming(value, "gradient")
        expect(
            flat.shape == case.meta.shape,
            "gradient",
            f"a flat vector of {len(case.meta)} numbers, or a dict by name",
            lambda: f"shape {flat.shape}",
        )
        readings = [name_after_name(flat, case, layout), flat.astype(np.float64)]
        grad = min(
            readings, key=lambda g: np.abs(g - case.truth).max() if np.isfinite(g).all() else np.inf
        )
        finite(grad, case, "gradient")
        return grad, flat.dtype.type, ()
    expect(
        isinstance(value, dict),
        "gradient",
        "a dict {name: array} or a flat vector",
        lambda: described(value),
    )
    names = ", ".join(case.shapes)
    unknown = [str(k) for k in value if k not in case.shapes]
    missing = [k for k in case.shapes if k not in value and k not in case.structural_zeros]
    expect(not unknown, "gradient", f"the names {names}", lambda: f"an unknown name {unknown[0]!r}")
    expect(not missing, "gradient", f"the names {names}", lambda: f"nothing for {missing[0]!r}")
    absent = tuple(
        name for name, a in value.items() if a is None and name not in case.structural_zeros
    )
    arrays = {
        name: named_array(name, a, case.shapes[name], layout)
        for name, a in value.items()
        if a is not None
    }
    dtypes = {a.dtype.type for a in arrays.values()}
    full = {name: arrays.get(name, np.zeros(shape)) for name, shape in case.shapes.items()}
    flat = case.flat(full)
    finite(flat, case, "gradient")
    return flat, np.float32 if np.float32 in dtypes else np.float64, absent


def name_after_name(flat, case, layout):
    """The meta vector (M,) of a flat one with an array behind another in the order of params, each in the user's layout."""
    named, start = {}, 0
    for name, shape in case.shapes.items():
        theirs = layout.theirs(name, np.empty(shape)).shape
        stop = start + int(np.prod(shape))
        named[name] = layout.ours(name, flat[start:stop].reshape(theirs).astype(np.float64))
        start = stop
    return case.flat(named)


def named_array(name, value, shape, layout):
    """One named gradient in our layout, its shape checked."""
    a = layout.ours(name, incoming(value, f"gradient[{name!r}]"))
    hint = (
        f' (its axes swapped? then layout={{"{name}": "IO"}})'
        if a.shape == shape[::-1] and len(shape) == 2
        else ""
    )
    expect(a.shape == shape, f"gradient[{name!r}]", f"shape {shape}", lambda: f"{a.shape}{hint}")
    return a


def finite(flat, case, what):
    """Raise ArgumentError naming the first tensor with a number that is not finite."""
    for name, place in case.places.items():
        bad = int((~np.isfinite(flat[place])).sum())
        expect(
            not bad,
            f"{what}[{name!r}]",
            "finite numbers",
            lambda bad=bad: (
                f"{bad} that are NaN or infinite (Adam's square root, or a norm, at 0? a step size that diverges?)"
            ),
        )


# ---- the rest --------------------------------------------------------------------------------------------------------


def stage(name, value, case, layout):
    """A stage as an array: the loss () or (T,); otherwise a list over steps of (T, P)."""
    if name == "loss":
        return losses(value)
    steps = value if isinstance(value, (list, tuple)) else [value]
    return [rows(name, step, case, layout) for step in steps]


def losses(value):
    """A number or (T,), from whatever holds numbers."""
    many = value if isinstance(value, (list, tuple)) else [value]
    plain = [detached(v) for v in many]
    return np.concatenate(
        [np.atleast_1d(v.numpy() if hasattr(v, "numpy") else np.asarray(v)) for v in plain]
    ).astype(np.float64)


def rows(name, value, case, layout):
    """(T, P) of {name: (T, ...)}, or of an array (T, P)."""
    T, P = len(case.batch), case.net.num_params
    if hasattr(value, "shape"):
        a = incoming(detached(value), name)
    else:
        expect(
            isinstance(value, dict),
            name,
            "{name: array (tasks, ...)}, or an array (tasks, P), or a list of those",
            lambda: described(value),
        )
        known = [k for k in case.net.shapes if value.get(k) is not None]
        expect(
            len(known) == len(case.net.shapes),
            name,
            f"the names {', '.join(case.net.shapes)}",
            ", ".join(map(str, value)),
        )
        arrays = [
            np.stack(
                [layout.ours(k, row) for row in incoming(detached(value[k]), f"{name}[{k!r}]")]
            )
            for k in known
        ]
        a = np.concatenate([part.reshape(len(part), -1) for part in arrays], axis=1)
    expect(
        a.shape in ((T, P), (1, P)),
        name,
        f"shape ({T}, {P}): a row for each task",
        lambda: f"{a.shape}",
    )
    return np.broadcast_to(a.astype(np.float64), (T, P))


def detached(value):
    """A torch tensor without its graph; intermediates may have one."""
    return value.detach() if hasattr(value, "detach") else value
