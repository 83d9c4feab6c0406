"""A convolution with groups of channels as one without, for kernels that know none.

G groups are G convolutions side by side, which share nothing. So they are one
convolution of T G tasks: task t G + g has the channels of group g. Images are copied
into that order; filters are in it already.

A product is a function (out, a, b) of lists a and b, each of one or two arrays; out is
the sum of the products of their pairs. `empty` (shape, dtype) allocates arrays, for
images in the order that the kernels take.
"""


def groups(images, filters):
    """G, from images of the C input channels and filters (T, O, C / G, kH, kW)."""
    return images.shape[2] // filters.shape[2]


def split(a, G, empty):
    """Images (T, N, C, ...) as (T G, N, C / G, ...)."""
    T, N, C, *extents = a.shape
    out = empty((T * G, N, C // G, *extents), a.dtype)
    by_group = a.reshape(T, N, G, C // G, *extents).swapaxes(1, 2)
    out.reshape(T, G, N, C // G, *extents)[...] = by_group
    return out


def join(out, parts):
    """The inverse of `split`: fills out (T, N, C, ...) from (T G, N, C / G, ...)."""
    (T, N, C, *extents), G = out.shape, len(parts) // len(out)
    by_group = parts.reshape(T, G, N, C // G, *extents).swapaxes(1, 2)
    out.reshape(T, N, G, C // G, *extents)[...] = by_group


def split_filters(w, G):
    """Filters (T, O, C / G, kH, kW) as (T G, O / G, C / G, kH, kW)."""
    return w.reshape(len(w) * G, w.shape[1] // G, *w.shape[2:])


def images_by_group(product, out, images, filters, G, empty):
    """out = product(images, filters): images again, group by group."""
    if G == 1:
        return product(out, images, filters)
    T, N, C, *extents = out.shape
    parts = empty((T * G, N, C // G, *extents), out.dtype)
    split_images = [split(a, G, empty) for a in images]
    product(parts, split_images, [split_filters(w, G) for w in filters])
    return join(out, parts)


def filters_by_group(product, dw, first, second, G, empty):
    """dw = product(first, second) of images, group by group."""
    if G == 1:
        return product(dw, first, second)
    parts = dw.reshape(len(dw) * G, dw.shape[1] // G, *dw.shape[2:]).copy()
    product(parts, *([split(a, G, empty) for a in images] for images in (first, second)))
    dw[...] = parts.reshape(dw.shape)
    return None
