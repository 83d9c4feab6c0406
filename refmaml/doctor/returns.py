"""What the user's function may return, and how it is read.

A gradient: {name: array}, or one flat vector, name after name in the order of params
(or in the order of method.init, which differs for MAML++). Alone; or (gradient, loss);
or (gradient, loss, adapted); or a dict or an object with `grad` and any of the STAGES,
which show where a wrong gradient went wrong:

    loss         the query loss after adaptation, its mean over tasks or one a task (T,)
    inner_grad   [for each inner step: the gradients of the support loss]
    adapted      phi_K; or phi: [phi_1 .. phi_K]
    query_grad   the query loss's gradient at phi_K
    hvp          [for each inner step k: H_f(phi_k) (A lam_{k+1})]

All but the loss are {name: (T, ...)} or arrays (T, P).
"""

from dataclasses import dataclass, field

import numpy as np

from refmaml.doctor.frameworks import first_line, numpy_array
from refmaml.errors import ArgumentError, expect

STAGES = ("loss", "inner_grad", "phi", "adapted", "query_grad", "hvp")


@dataclass(frozen=True)
class Answer:
    """What the user's function returned on a case.

    grad     (M,) in refmaml's order and layout
    dtype    the type of the returned arrays
    absent   names whose gradient was None
    stages   {stage: list over steps of arrays (T, P), or the loss as an array}
    unread   [(name, why)]: returned stages that are no arrays; they are ignored
    """

    grad: np.ndarray
    dtype: type
    absent: tuple = ()
    stages: dict = field(default_factory=dict)
    unread: tuple = ()


def read(value, case, layout):
    """The Answer in a returned value. Raises ArgumentError in one line."""
    expect(
        value is not None,
        "function",
        "a gradient for each parameter",
        "None (is there a return statement?)",
    )
    parts = case.parts(value) or split(value)
    grad, dtype, absent = read_gradient(case.named_gradient(parts.pop("grad")), case, layout)
    stages, unread = {}, []
    for name, part in parts.items():
        if part is not None:
            try:
                stages[name] = read_stage(name, part, case, layout)
            except ArgumentError:
                raise
            except Exception as error:  # no arrays at all, as a dict of metrics
                unread.append((name, first_line(error)))
    return Answer(grad, dtype, absent, stages, tuple(unread))


def split(value):
    """{"grad": ..., stage: ...} of what was returned."""
    if hasattr(value, "shape"):
        return {"grad": value}
    if isinstance(value, dict):
        if "grad" not in value:
            return {"grad": value}
        return {k: v for k, v in value.items() if k in ("grad", *STAGES)}
    if hasattr(value, "grad"):
        return split_object(value)
    expect(
        isinstance(value, (tuple, list)) and len(value) in (2, 3),
        "function",
        "{name: gradient}, a flat vector, (gradient, loss), (gradient, loss, adapted), "
        "or an object with grad",
        lambda: described(value),
    )
    return dict(zip(("grad", "loss", "adapted"), value, strict=False))


def split_object(value):
    """{"grad": ..., stage: ...} of an object and of its refmaml trace."""
    found = {name: getattr(value, name, None) for name in STAGES}
    found = {"grad": value.grad, **{k: v for k, v in found.items() if v is not None}}
    trace = getattr(value, "trace", None) or {}
    if "phi" in trace:
        found["phi"] = trace["phi"][1:]
    return found | {name: trace[name] for name in ("inner_grad", "hvp") if name in trace}


def described(value):
    """A value's type and length, for an error message."""
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"


# ---- the gradient --------------------------------------------------------------------


def read_gradient(value, case, layout):
    """(grad (M,), dtype, names whose gradient is None) of a dict or a flat vector."""
    if hasattr(value, "shape"):
        return read_flat(value, case, layout)
    expect(
        isinstance(value, dict),
        "gradient",
        "a dict {name: array} or a flat vector",
        lambda: described(value),
    )
    check_names(value, case)
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
    expect_finite(flat, case)
    return flat, np.float32 if np.float32 in dtypes else np.float64, absent


def read_flat(value, case, layout):
    """The same of a flat vector, in the order that is nearer to the truth."""
    flat = numpy_array(value, "gradient")
    expect(
        flat.shape == case.meta.shape,
        "gradient",
        f"a flat vector of {len(case.meta)} numbers, or a dict by name",
        lambda: f"shape {flat.shape}",
    )

    def distance(g):
        return np.abs(g - case.truth).max() if np.isfinite(g).all() else np.inf

    orders = [in_order_of_params(flat, case, layout), flat.astype(np.float64)]
    grad = min(orders, key=distance)
    expect_finite(grad, case)
    return grad, flat.dtype.type, ()


def check_names(value, case):
    """Raise ArgumentError for an unknown or a missing name."""
    names = ", ".join(case.shapes)
    unknown = [str(k) for k in value if k not in case.shapes]
    missing = [k for k in case.shapes if k not in value and k not in case.structural_zeros]
    expect(not unknown, "gradient", f"the names {names}", lambda: f"an unknown name {unknown[0]!r}")
    declare = "(where it is not meta-learned: not_meta_learned=)"
    got = f"nothing for {missing[0]!r} {declare}" if missing else ""
    expect(not missing, "gradient", f"the names {names}", got)


def in_order_of_params(flat, case, layout):
    """The meta vector (M,) of a flat one that holds array after array in the order of
    params, each in the user's layout."""
    named, start = {}, 0
    for name, shape in case.shapes.items():
        user_shape = layout.to_user(name, np.empty(shape)).shape
        stop = start + int(np.prod(shape))
        a = flat[start:stop].reshape(user_shape).astype(np.float64)
        named[name] = layout.from_user(name, a)
        start = stop
    return case.flat(named)


def named_array(name, value, shape, layout):
    """One named gradient in refmaml's layout, its shape checked."""
    a = layout.from_user(name, numpy_array(value, f"gradient[{name!r}]"))
    hint = ""
    if a.shape == shape[::-1] and len(shape) == 2:
        hint = f' (its axes swapped? then layout={{"{name}": "IO"}})'
    expect(a.shape == shape, f"gradient[{name!r}]", f"shape {shape}", lambda: f"{a.shape}{hint}")
    return a


def expect_finite(flat, case):
    """Raise ArgumentError naming the first tensor with a number that is not finite."""
    reason = "(Adam's square root, or a norm, at 0? a step size that diverges?)"
    for name, place in case.places.items():
        bad = int((~np.isfinite(flat[place])).sum())
        got = f"{bad} that are NaN or infinite {reason}"
        expect(not bad, f"gradient[{name!r}]", "finite numbers", got)


# ---- the stages ----------------------------------------------------------------------


def read_stage(name, value, case, layout):
    """A stage: the loss (1,) or (T,); otherwise a list over steps of (T, P)."""
    if name == "loss":
        return read_loss(value)
    steps = value if isinstance(value, (list, tuple)) else [value]
    return [read_rows(name, step, case, layout) for step in steps]


def read_loss(value):
    """A number or (T,), from numbers, arrays, tensors or a list of them."""
    values = [detached(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    arrays = [v.numpy() if hasattr(v, "numpy") else np.asarray(v) for v in values]
    return np.concatenate([np.atleast_1d(a) for a in arrays]).astype(np.float64)


def read_rows(name, value, case, layout):
    """(T, P) of {name: (T, ...)}, or of an array (T, P)."""
    T, P = len(case.batch), case.net.num_params
    if hasattr(value, "shape"):
        a = numpy_array(detached(value), name)
    else:
        a = read_named_rows(name, value, case, layout)
    expect(
        a.shape in ((T, P), (1, P)),
        name,
        f"shape ({T}, {P}): a row for each task",
        lambda: f"{a.shape}",
    )
    return np.broadcast_to(a.astype(np.float64), (T, P))


def read_named_rows(name, value, case, layout):
    """(T, P) of {name: (T, ...)}."""
    value = case.named_gradient(value)
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
    parts = []
    for k in known:
        rows = numpy_array(detached(value[k]), f"{name}[{k!r}]")
        rows = np.stack([layout.from_user(k, row) for row in rows])
        parts.append(rows.reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


def detached(value):
    """A torch tensor without its graph; other values as they are."""
    return value.detach() if hasattr(value, "detach") else value
