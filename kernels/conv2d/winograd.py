"""The three products of a convolution by Winograd's minimal filtering, for one task.

For filters of 3 x 3 and stride 1. With the matrices of winograd_matrices.py, for each
of the 36 numbers of a tile,

    U = G w G'       (36, I, J)      filters
    V = B' x B       (36, tiles, I)  inputs
    forward     M = V U              36 matrix products;  y = A' M A
    backward_x  the same with dy and the flipped filters (winograd_block.py)
    backward_w  R = A dy A',  S = V' R  summed over tiles;  dw = G' S G

The last line is the adjoint of the first in w: <dy, A' (V U) A> = <A dy A', V U> =
<V' (A dy A'), G w G'>. The two products of an R-pass are added before the transform
back. All arrays are flat; filters are rows (tap, i) of J numbers.

Microseconds for 75 images, 64 -> 64 channels, float32, one thread, forward / backward_x
/ backward_w:
                       14x14                    7x7                   3x3
  direct (cpu.py)      10800 / 10800 / 12900    2340 / 2340 / 2830    325 / 330 / 375
  here                  5460 /  5530 /  5900    1255 / 1245 / 1360    335 / 368 / 351
For 5 images of 14x14 they are 705 / 700 / 815 and 345 / 345 / 370. At 14x14 a direct
product has 1600 multiplications for each pair of channels; here there are 576. The
matrix products run at the direct ones' rate. Transforms of inputs take 14 % of the
time, those back 7 %. Keeping transforms from pass to pass would save these 14 % at most
and take 2.9 times the memory of the images, so they are computed anew.

Rounding errors in float32, relative to those of the direct product (root mean square):
2.2 and 2.4 for sums over 64 and 32 channels, 2.7 for 16; for dw 2.5 with 196 positions,
3.6 with 49. algorithms.py chooses.

Rejected: tiles of 2 x 2 outputs, 784 multiplications at 14x14 (errors .8 and 1.3 times
the direct ones). Stride 2 by its four phases, 14x14 -> 7x7: 385 multiplications with
tiles of 2 x 2 outputs and 309 with 4 x 4, beside 400 of the direct product; transforms
would take more than is gained.
"""

import numpy as np

from refmaml.kernels.conv2d import winograd_block as at
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, WHAT
from refmaml.kernels.conv2d.winograd_block import WINOGRAD, lists
from refmaml.kernels.conv2d.winograd_matrices import OUTPUTS, TILE, matrices, transposed
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.gemm_microkernel import accumulate
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.numba_runtime.simd import VECTOR
from refmaml.kernels.numba_runtime.two_sided import two_sided
from refmaml.kernels.numba_runtime.unowned_views import tail

A, G, B = matrices()
from_images = two_sided(B, gather=True)
from_filters = two_sided(G)
to_outputs = two_sided(A, scatter=True)
from_outputs = two_sided(transposed(A), gather=True)
to_filters = two_sided(transposed(G))
NUMBERS, WRITTEN = TILE**2, OUTPUTS**2
# images (flat), places, images, tiles and numbers of an image, channels, step
IMAGES = "F[::1], int64[::1], int64, int64, int64, int64, int64"


# ---- transforms of all tiles, and of all filters -------------------------------------


# fmt: off
@external(f"F[::1], {IMAGES}")
def transform_inputs(V, x, places, images, tiles, size, channels, step):
    """V = B' x B."""
    lanes = VECTOR // V.itemsize
    for image in range(images):
        for tile in range(tiles):
            row = (image * tiles + tile) * channels
            for c in range(0, channels, lanes):
                from_images(V, row + c, step, x, image * size + c, 0, places, NUMBERS * tile)


@external(f"F[::1], {IMAGES}")
def transform_adjoints(R, dy, places, images, tiles, size, channels, step):
    """R = A dy A'."""
    lanes = VECTOR // R.itemsize
    for image in range(images):
        for tile in range(tiles):
            row = (image * tiles + tile) * channels
            for c in range(0, channels, lanes):
                from_outputs(R, row + c, step, dy, image * size + c, 0, places, WRITTEN * tile)


@external(f"F[::1], {IMAGES}")
def outputs_of(y, M, places, images, tiles, size, channels, step):
    """y = A' M A."""
    lanes = VECTOR // M.itemsize
    for image in range(images):
        for tile in range(tiles):
            row = (image * tiles + tile) * channels
            for c in range(0, channels, lanes):
                to_outputs(y, image * size + c, 0, M, row + c, step, places, WRITTEN * tile)


@external("F[::1], F[::1], int64[::1], int64, int64")
def transform_filters(U, f, block, size, step):
    """U = G f G'."""
    for e in range(0, size, VECTOR // U.itemsize):
        from_filters(U, e, step, f, block[at.TAP] + e, block[at.TAP_STEP], block, 0)


@external("F[::1], F[::1], int64[::1], int64, int64")
def filters_of(dw, S, block, size, step):
    """dw = G' S G."""
    for e in range(0, size, VECTOR // S.itemsize):
        to_filters(dw, block[at.TAP] + e, block[at.TAP_STEP], S, e, step, block, 0)


# ---- products ------------------------------------------------------------------------


@inner()
def memory_for(like, size, inputs, outputs):
    """Memory for so many numbers of filters, inputs and outputs, at a cache line."""
    memory = np.empty(size + inputs + outputs + at.LINE, like.dtype)
    start = -(memory.ctypes.data // memory.itemsize) % at.LINE
    to_inputs, to_end = start + size, start + size + inputs
    return memory[start:to_inputs], memory[to_inputs:to_end], memory[to_end : to_end + outputs]


@inlined()
def extents(block):
    """(n, tiles, channels in and out, sizes of images in and out, steps in and out)."""
    return (block[at.N_IMAGES], block[at.N_TILES], block[at.I], block[at.J], block[at.SIZE_IN],
            block[at.SIZE_OUT], block[at.IN_STEP], block[at.OUT_STEP])


@external("F[::1], F[::1], F[::1], F[::1], F[::1], int64[::1], int64", on_demand=True)
def images_product(y, x, x2, f, f2, block, N):
    """y from x and filters; plus that of x2 and f2 unless x2 is empty."""
    n, tiles, I, J, size_in, size_out, in_step, out_step = extents(block)
    places_in, places_out, tiles_in, tiles_out, numbers, rows = lists(block)
    filter_step, pairs, zero = I * J + at.LINE, 1 if len(x2) == 0 else 2, tiles - tiles
    half = NUMBERS * filter_step
    U, V, M = memory_for(f, pairs * half, NUMBERS * in_step, NUMBERS * out_step)
    transform_filters(U, f, block, I * J, filter_step)
    if pairs == 2:
        transform_filters(tail(U, half), f2, block, I * J, filter_step)
    for image in range(0, N, n):
        m = min(n, N - image)
        for second in range(pairs):
            transform_inputs(V, tail(x2 if second else x, image * size_in), places_in, m, tiles,
                             size_in, I, in_step)
            for k in range(NUMBERS):
                accumulate((tail(M, k * out_step), tail(V, k * in_step),
                            tail(U, second * half + k * filter_step), tiles_out, tiles_in, zero,
                            m * tiles, numbers, rows, zero, I, J, second == 0))
        outputs_of(tail(y, image * size_out), M, places_out, m, tiles, size_out, J, out_step)


@external("F[::1], F[::1], F[::1], F[::1], F[::1], int64[::1], int64", on_demand=True)
def filters_product(dw, x, x2, dy, dy2, block, N):
    """dw from x and dy; plus that of x2 and dy2 unless x2 is empty."""
    n, tiles, I, J, size_in, size_out, in_step, out_step = extents(block)
    places_in, places_out, tiles_in, tiles_out, numbers, rows = lists(block)
    filter_step, pairs, zero = I * J + at.LINE, 1 if len(x2) == 0 else 2, tiles - tiles
    S, V, R = memory_for(x, NUMBERS * filter_step, NUMBERS * in_step, NUMBERS * out_step)
    for image in range(0, N, n):
        m = min(n, N - image)
        for second in range(pairs):
            transform_inputs(V, tail(x2 if second else x, image * size_in), places_in, m, tiles,
                             size_in, I, in_step)
            transform_adjoints(R, tail(dy2 if second else dy, image * size_out), places_out, m,
                               tiles, size_out, J, out_step)
            for k in range(NUMBERS):
                accumulate((tail(S, k * filter_step), tail(V, k * in_step), tail(R, k * out_step),
                            rows, numbers, zero, I, tiles_in, tiles_out, zero, m * tiles, J,
                            image == 0 and second == 0))
    filters_of(dw, S, block, I * J, filter_step)


@inlined()
def product(c, x, x2, y, y2, f, f2, block, N):
    """As `product` in task_product.py."""
    if block[WHAT] == WINOGRAD + BACKWARD_W:
        filters_product(c, x, x2, y, y2, block, N)
    elif block[WHAT] == WINOGRAD:
        images_product(c, x, x2, f, f2, block, N)
    else:
        images_product(c, y, y2, f, f2, block, N)
# fmt: on
