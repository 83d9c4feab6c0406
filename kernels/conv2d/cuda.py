"""2-D convolution on a GPU, by the kernels of conv2d.cu.

Not run on a GPU yet.
"""

from refmaml.kernels.cuda_runtime.launcher import TEAM, blocks_of

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]

# For dw of filters with at most FEW_TAPS taps; the first two are FEW and FILTERS of
# conv2d_v3.cu.
FEW_TAPS = 16
FILTERS = 4  # of a block
MAX_PARTS = 4  # among which the positions are divided
MIN_POSITIONS = 1024  # of a part


def product(launch, kernel, matrix, out, first, second, geometry):
    """out = the product of the pair `first`, plus that of `second` unless it is None.

    matrix    (rows, columns, depth) of the product, see Launcher.product
    geometry  the integers of `geometry_of`
    """
    pairs = 2 if second else 1
    inputs = [*first, *(second or first)]
    launch.product("conv2d", kernel, matrix, [out], inputs, *geometry, pairs)


def geometry_of(x, y, w, stride, padding):
    """The integers that all kernels take, from arrays of the shapes of x, y and w.

    A stride beyond the padded image moves no second window into it, so it is cut to
    that.
    """
    (N, C, H, W), (O, Ho, Wo) = x.shape[1:], y.shape[2:]
    extents = H + sum(padding[0]), W + sum(padding[1])
    steps = (min(s, extent) for s, extent in zip(stride, extents, strict=True))
    return N, C, H, W, O, Ho, Wo, *w.shape[3:], *steps, padding[0][0], padding[1][0]


def product_y(launch, y, first, second, x, w, stride, padding):
    """`product` for y: a row for each filter, N Ho Wo columns, a term for each tap."""
    matrix = y.shape[2], [y[:1, :, :1].size], w[:1, :1].size
    geometry = geometry_of(x, y, w, stride, padding)
    product(launch, "conv2d_forward", matrix, y, first, second, geometry)


def product_dx(launch, dx, first, second, dy, w, stride, padding):
    """`product` for dx: one row for each channel, one column for each pixel.

    The columns fall into groups of pixels with the same remainders of row and column
    modulo the stride, as only such pixels meet the same taps.
    """
    geometry = geometry_of(dx, dy, w, stride, padding)
    N, C, H, W, O, _, _, kH, kW, sH, sW, top, left = geometry
    columns = [
        N * down * across for down in residues(H, sH, top) for across in residues(W, sW, left)
    ]
    matrix = C, columns, O * -(-kH // sH) * -(-kW // sW)
    product(launch, "conv2d_backward_x", matrix, dx, first, second, geometry)


def residues(H, s, start):
    """The numbers of rows h < H with (h + start) % s = 0, 1, .., s - 1."""
    return [len(range((r - start) % s, H, s)) for r in range(s)]


def product_dw(launch, dw, first, second, x, dy, stride, padding):
    """`product` for dw: a row for each filter, a column per tap, a term per position.

    Filters with few taps would leave most of a tile empty: they have a kernel of their
    own.
    """
    rows, taps, positions = dw.shape[1], dw[:1, :1].size, dy[:1, :, :1].size
    geometry = geometry_of(x, dy, dw, stride, padding)
    if launch.version < 3 or taps > FEW_TAPS:
        matrix = rows, [taps], positions
        product(launch, "conv2d_backward_w", matrix, dw, first, second, geometry)
        return
    parts = max(1, min(MAX_PARTS, positions // MIN_POSITIONS))
    inputs, pairs = [*first, *(second or first)], 2 if second else 1
    launch.in_parts(
        "conv2d",
        "conv2d_backward_w_few",
        (blocks_of(rows, FILTERS), 1),
        parts,
        dw,
        inputs,
        (*geometry, pairs),
        TEAM,
    )


def conv2d_forward(launch, y, x, w, stride, padding):
    """y = conv(x, w)."""
    product_y(launch, y, (x, w), None, x, w, stride, padding)


def conv2d_backward_x(launch, dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    product_dx(launch, dx, (dy, w), None, dy, w, stride, padding)


def conv2d_backward_w(launch, dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one for each task."""
    product_dw(launch, dw, (x, dy), None, x, dy, stride, padding)


def conv2d_r_forward(launch, ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    product_y(launch, ry, (rx, w), (x, rw), x, w, stride, padding)


def conv2d_r_backward_x(launch, rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product_dx(launch, rdx, (rdy, w), (dy, rw), dy, w, stride, padding)


def conv2d_r_backward_w(launch, rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one for each task."""
    product_dw(launch, rdw, (rx, dy), (x, rdy), x, dy, stride, padding)
