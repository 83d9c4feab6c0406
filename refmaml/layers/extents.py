"""What convolution and pooling windows make of heights and widths."""

import operator
from math import prod

from refmaml.errors import expect


def pair(value, argument, least=1):
    """3 -> (3, 3); (3, 5) stays. Raises ArgumentError for anything but one or two integers >= least."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    whole = len(values) == 2 and all(
        hasattr(v, "__index__") and operator.index(v) >= least for v in values
    )
    expect(whole, argument, f"an integer >= {least} or a pair of them", repr(value))
    return operator.index(values[0]), operator.index(values[1])


def explicit_padding(padding, kernel, stride, extents):
    """((top, bottom), (left, right)) from 1, (1, 2), ((0, 1), (0, 1)) or "same".

    "same" is TensorFlow's rule, which MAML's own net was trained with: ceil(H / s) outputs, the odd row of zeros at the
    bottom. On even sizes with stride 2 it pads (0, 1), where padding=1 pads (1, 1): equal shapes, other alignment.
    """
    if padding == "same":
        needed = [
            max((-(-H // s) - 1) * s + k - H, 0)
            for H, k, s in zip(extents, kernel, stride, strict=True)
        ]
        return tuple((n // 2, n - n // 2) for n in needed)
    if isinstance(padding, (tuple, list)) and padding and isinstance(padding[0], (tuple, list)):
        expect(len(padding) == 2, "padding", "((top, bottom), (left, right))", repr(padding))
        return pair(padding[0], "padding", 0), pair(padding[1], "padding", 0)
    pH, pW = pair(padding, "padding", 0)
    return (pH, pH), (pW, pW)


def window_extents(extents, kernel, stride, padding, layer):
    """How many windows fit: floor((H + top + bottom - kH) / sH) + 1, and the same across."""
    out = []
    for H, k, s, (before, after) in zip(extents, kernel, stride, padding, strict=True):
        expect(
            H + before + after >= k,
            f"input of {layer}",
            f"at least {k} rows and columns for its {kernel} window",
            f"{extents} with padding {padding}",
        )
        out.append((H + before + after - k) // s + 1)
    return tuple(out)


def expect_images(shape, channels, layer):
    """Raise ArgumentError unless `shape` is that of one (C, H, W) image, with C = channels where it is given."""
    wanted = f"images of shape ({channels if channels is not None else 'C'}, H, W)"
    expect(
        len(shape) == 3 and shape[0] in (channels, shape[0] if channels is None else channels),
        f"input of {layer}",
        wanted,
        f"shape {tuple(shape)}",
    )


def rows(x):
    """(T, N, C, ...) -> (T, N, C, L): images with their positions in one row, the shape that kernels over channels see."""
    return x.reshape(*x.shape[:3], prod(x.shape[3:]))
