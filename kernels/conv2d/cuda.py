"""2-D convolution on a GPU: see reference.py for what is computed, conv2d.cu for how. Never run on one yet."""

from refmaml.kernels.cuda_runtime.launcher import TEAM, in_blocks

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]

FEW, FILTERS = (
    16,
    4,
)  # taps of a filter up to which dw goes by positions, and filters of a block that does (both in conv2d.cu)
MOST_PARTS, POSITIONS = (
    4,
    1024,
)  # into how many parts the positions fall then, and how many each has at least


def product(launch, kernel, matrix, out, first, second, x, y, w, stride, padding):
    """out = the product of the pair `first`, plus that of the pair `second` if it is not None; x, y and w say what the extents are.

    matrix  (rows, columns, depth) of the product as Launcher.product takes them
    """
    inputs, numbers = given(first, second, x, y, w, stride, padding)
    launch.product("conv2d", kernel, matrix, [out], inputs, *numbers)


def given(first, second, x, y, w, stride, padding):
    """(inputs, numbers) of every kernel of conv2d.cu."""
    numbers = (
        *x.shape[1:],
        *y.shape[2:],
        *w.shape[3:],
        *stride,
        padding[0][0],
        padding[1][0],
        2 if second else 1,
    )
    return [*first, *(second or first)], numbers


def product_dw(launch, dw, first, second, x, dy, stride, padding):
    """`product` for dw, by positions where the filters have few taps."""
    rows, (taps,), positions = matrix = of_filters(dw, dy)
    if launch.version < 3 or taps > FEW:
        product(launch, "conv2d_backward_w", matrix, dw, first, second, x, dy, dw, stride, padding)
    else:
        parts = max(1, min(MOST_PARTS, positions // POSITIONS))
        launch.in_parts(
            "conv2d",
            "conv2d_backward_w_few",
            in_blocks(rows, FILTERS),
            1,
            parts,
            dw,
            *given(first, second, x, dy, dw, stride, padding),
            TEAM,
        )


def of_positions(y, w):
    """y as a product: a row for each filter, N Ho Wo columns, a term for each tap."""
    return y.shape[2], [y[:1, :, :1].size], w[:1, :1].size


def of_pixels(dx, w, stride, padding):
    """dx as a product: a row for each channel; the columns fall into pixels with the same remainders of row and column."""
    (N, _, H, W), (O, _, kH, kW), (sH, sW) = dx.shape[1:], w.shape[1:], stride
    columns = [
        N * down * across
        for down in remainders(H, sH, padding[0][0])
        for across in remainders(W, sW, padding[1][0])
    ]
    return dx.shape[2], columns, O * -(-kH // sH) * -(-kW // sW)


def remainders(H, s, start):
    """How many of the rows h of an image have (h + start) % s = 0 .. s-1."""
    return [len(range((r - start) % s, H, s)) for r in range(s)]


def of_filters(dw, dy):
    """dw as a product: a row for each filter, a column for each tap, a term for each position."""
    return dw.shape[1], [dw[:1, :1].size], dy[:1, :, :1].size


def conv2d_forward(launch, y, x, w, stride, padding):
    """y = conv(x, w)."""
    product(launch, "conv2d_forward", of_positions(y, w), y, (x, w), None, x, y, w, stride, padding)


def conv2d_backward_x(launch, dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    product(
        launch,
        "conv2d_backward_x",
        of_pixels(dx, w, stride, padding),
        dx,
        (dy, w),
        None,
        dx,
        dy,
        w,
        stride,
        padding,
    )


def conv2d_backward_w(launch, dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    product_dw(launch, dw, (x, dy), None, x, dy, stride, padding)


def conv2d_r_forward(launch, ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    product(
        launch,
        "conv2d_forward",
        of_positions(ry, w),
        ry,
        (rx, w),
        (x, rw),
        x,
        ry,
        w,
        stride,
        padding,
    )


def conv2d_r_backward_x(launch, rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product(
        launch,
        "conv2d_backward_x",
        of_pixels(rdx, w, stride, padding),
        rdx,
        (rdy, w),
        (dy, rw),
        rdx,
        dy,
        w,
        stride,
        padding,
    )


def conv2d_r_backward_w(launch, rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    product_dw(launch, rdw, (rx, dy), (x, rdy), x, dy, stride, padding)
