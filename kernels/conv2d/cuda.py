"""2-D convolution on a GPU, by the kernels of conv2d.cu.

Not run on a GPU yet.
"""

from functools import partial

from refmaml.kernels.conv2d.groups import filters_by_group, groups, images_by_group
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


def product(launch, kernel, matrix, out, pairs, geometry):
    """out = the sum of the products of one or two pairs of arrays.

    matrix    (rows, columns, depth) of the product, see Launcher.product
    geometry  the integers of `geometry_of`
    """
    inputs = [*pairs[0], *pairs[-1]]
    launch.product("conv2d", kernel, matrix, [out], inputs, *geometry, len(pairs))


def geometry_of(x, y, w, stride, padding):
    """The integers that all kernels take, from arrays of the shapes of x, y and w.

    A stride beyond the padded image moves no second window into it, so it is cut to
    that.
    """
    (N, C, H, W), (O, Ho, Wo) = x.shape[1:], y.shape[2:]
    extents = H + sum(padding[0]), W + sum(padding[1])
    steps = (min(s, extent) for s, extent in zip(stride, extents, strict=True))
    return N, C, H, W, O, Ho, Wo, *w.shape[3:], *steps, padding[0][0], padding[1][0]


def product_y(launch, stride, padding, y, xs, ws):
    """`product` for y: a row for each filter, N Ho Wo columns, a term for each tap."""
    matrix = y.shape[2], [y[:1, :, :1].size], ws[0][:1, :1].size
    geometry = geometry_of(xs[0], y, ws[0], stride, padding)
    product(launch, "conv2d_forward", matrix, y, list(zip(xs, ws, strict=True)), geometry)


def product_dx(launch, stride, padding, dx, dys, ws):
    """`product` for dx: one row for each channel, one column for each pixel.

    The columns fall into groups of pixels with the same remainders of row and column
    modulo the stride, as only such pixels meet the same taps.
    """
    geometry = geometry_of(dx, dys[0], ws[0], stride, padding)
    N, C, H, W, O, _, _, kH, kW, sH, sW, top, left = geometry
    columns = [
        N * down * across for down in residues(H, sH, top) for across in residues(W, sW, left)
    ]
    matrix = C, columns, O * -(-kH // sH) * -(-kW // sW)
    product(launch, "conv2d_backward_x", matrix, dx, list(zip(dys, ws, strict=True)), geometry)


def residues(H, s, start):
    """The numbers of rows h < H with (h + start) % s = 0, 1, .., s - 1."""
    return [len(range((r - start) % s, H, s)) for r in range(s)]


def product_dw(launch, stride, padding, dw, xs, dys):
    """`product` for dw: a row for each filter, a column per tap, a term per position.

    Filters with few taps would leave most of a tile empty: they have a kernel of their
    own.
    """
    rows, taps, positions = dw.shape[1], dw[:1, :1].size, dys[0][:1, :, :1].size
    geometry = geometry_of(xs[0], dys[0], dw, stride, padding)
    pairs = list(zip(xs, dys, strict=True))
    if launch.version < 3 or taps > FEW_TAPS:
        matrix = rows, [taps], positions
        product(launch, "conv2d_backward_w", matrix, dw, pairs, geometry)
        return
    parts = max(1, min(MAX_PARTS, positions // MIN_POSITIONS))
    launch.in_parts(
        "conv2d",
        "conv2d_backward_w_few",
        (blocks_of(rows, FILTERS), 1),
        parts,
        dw,
        [*pairs[0], *pairs[-1]],
        (*geometry, len(pairs)),
        TEAM,
    )


# ---- dilation and groups -------------------------------------------------------------
#
# The kernels know neither. A dilated filter is a larger filter with zeros between its
# taps; groups are tasks (groups.py). Both cost copies, and dilation multiplies by
# zeros.


def spread(xp, w, dilation):
    """Filters with zeros between their taps, so that these are `dilation` apart."""
    kernel = (d * (k - 1) + 1 for k, d in zip(w.shape[3:], dilation, strict=True))
    spread_out = xp.zeros((*w.shape[:3], *kernel), w.dtype)
    spread_out[..., :: dilation[0], :: dilation[1]] = w
    return spread_out


def write(xp, out, value):
    """out[...] = value, an array of the device; out may be NumPy's."""
    out[...] = value if isinstance(out, xp.ndarray) else xp.asnumpy(value)


def to_images(launch, product, out, images, filters, G, windows):
    """out = the sum of product(images, filters) over their pairs: y or dx."""
    stride, padding, dilation = windows
    kernel, xp = partial(product, launch, stride, padding), launch.xp
    if G == 1 and dilation == (1, 1):
        return kernel(out, images, filters)
    filters = [spread(xp, xp.asarray(w), dilation) for w in filters]
    if G > 1:  # each task has its filters: T G tasks share none
        shapes = [(len(out), *w.shape[1:]) for w in filters]
        filters = [xp.broadcast_to(w, s) for w, s in zip(filters, shapes, strict=True)]
    result = launch.empty(out.shape, out.dtype)
    images_by_group(kernel, result, [xp.asarray(a) for a in images], filters, G, launch.empty)
    return write(xp, out, result)


def to_filters(launch, product, dw, xs, dys, G, windows):
    """dw = the sum of product(x, dy) over their pairs."""
    stride, padding, dilation = windows
    kernel, xp = partial(product, launch, stride, padding), launch.xp
    if G == 1 and dilation == (1, 1):
        return kernel(dw, xs, dys)
    result = spread(xp, xp.zeros(dw.shape, dw.dtype), dilation)
    first, second = ([xp.asarray(a) for a in images] for images in (xs, dys))
    filters_by_group(kernel, result, first, second, G, launch.empty)
    return write(xp, dw, result[..., :: dilation[0], :: dilation[1]])


def conv2d_forward(launch, y, x, w, stride, padding, dilation=(1, 1)):
    """y = conv(x, w)."""
    windows = stride, padding, dilation
    to_images(launch, product_y, y, (x,), (w,), groups(x, w), windows)


def conv2d_backward_x(launch, dx, dy, w, stride, padding, dilation=(1, 1)):
    """dx = conv_dx(dy, w)."""
    windows = stride, padding, dilation
    to_images(launch, product_dx, dx, (dy,), (w,), groups(dx, w), windows)


def conv2d_backward_w(launch, dw, x, dy, stride, padding, dilation=(1, 1)):
    """dw = conv_dw(x, dy), one for each task."""
    windows = stride, padding, dilation
    to_filters(launch, product_dw, dw, (x,), (dy,), groups(x, dw), windows)


def conv2d_r_forward(launch, ry, x, rx, w, rw, stride, padding, dilation=(1, 1)):
    """ry = conv(rx, w) + conv(x, rw)."""
    windows = stride, padding, dilation
    to_images(launch, product_y, ry, (rx, x), (w, rw), groups(x, w), windows)


def conv2d_r_backward_x(launch, rdx, dy, rdy, w, rw, stride, padding, dilation=(1, 1)):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    windows = stride, padding, dilation
    to_images(launch, product_dx, rdx, (rdy, dy), (w, rw), groups(rdx, w), windows)


def conv2d_r_backward_w(launch, rdw, x, rx, dy, rdy, stride, padding, dilation=(1, 1)):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one for each task."""
    windows = stride, padding, dilation
    to_filters(launch, product_dw, rdw, (rx, x), (dy, rdy), groups(x, rdw), windows)
