"""Heights and widths: windows, padding, and the outputs that they give."""

from math import prod
from typing import Any

from refmaml.arguments import is_integer
from refmaml.errors import expect

Pair = tuple[int, int]


def pair(value: Any, argument: str, least: int = 1) -> Pair:
    """3 -> (3, 3); (3, 5) stays.

    Raises ArgumentError for anything but one or two integers >= least.
    """
    values = value if isinstance(value, (tuple, list)) else (value, value)
    ok = len(values) == 2 and all(is_integer(v) and v >= least for v in values)
    expect(ok, argument, f"an integer >= {least} or a pair of them", lambda: repr(value))
    return int(values[0]), int(values[1])


def explicit_padding(
    padding: Any, kernel: tuple, stride: tuple, extents: tuple
) -> tuple[tuple, ...]:
    """((top, bottom), (left, right)) from 1, (1, 2), ((0, 1), (0, 1)) or "same".

    "same" is TensorFlow's rule, which MAML's own net was trained with: ceil(H / s)
    outputs, an odd row of zeros at the bottom. On even sizes with stride 2 it pads
    (0, 1), where padding=1 pads (1, 1): the shapes are equal, the alignment differs.
    """
    if isinstance(padding, str):
        expect(padding == "same", "padding", "integers, or 'same'", repr(padding))
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


def window_extents(
    extents: tuple, kernel: tuple, stride: tuple, padding: tuple, layer: str
) -> tuple[int, ...]:
    """How many windows fit: floor((H + top + bottom - kH) / sH) + 1; widths alike."""
    out = []
    for H, k, s, (before, after) in zip(extents, kernel, stride, padding, strict=True):
        ok = H + before + after >= k
        wanted = f"at least {k} rows and columns for its {kernel} window"
        expect(ok, f"input of {layer}", wanted, f"{extents} with padding {padding}")
        out.append((H + before + after - k) // s + 1)
    return tuple(out)


def expect_images(shape: tuple, channels: int | None, layer: str) -> None:
    """Raise ArgumentError unless `shape` is (C, H, W), with C = channels if given."""
    ok = len(shape) == 3 and channels in (None, shape[0])
    wanted = f"images of shape ({'C' if channels is None else channels}, H, W)"
    expect(ok, f"input of {layer}", wanted, lambda: f"shape {tuple(shape)}")


def rows(x):
    """(T, N, C, ...) -> (T, N, C, L): the positions of an image as one axis.

    Kernels over channels take this shape.
    """
    return x.reshape(*x.shape[:3], prod(x.shape[3:]))
