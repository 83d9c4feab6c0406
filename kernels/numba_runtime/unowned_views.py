"""Views without reference counts, for compiled functions that slice a lot.

Numba counts the references to an array's memory. Each slice costs an atomic addition
when it is made and another when it is dropped, and two threads that slice one array
wait for each other. Numba's own slices also take negative and far indices, which takes
longer to compile than most loops. The caller keeps the memory alive until the compiled
function returns, so nothing has to be counted. Indices must be in the array.
"""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


@intrinsic
def unowned(typingctx, a):
    """The same array without an owner."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.return_type)(context, builder, args[0])
        array.meminfo, array.parent = (
            cgutils.get_null_value(field.type) for field in (array.meminfo, array.parent)
        )
        return array._getvalue()

    return a(a), codegen


@intrinsic
def part(typingctx, a, start, end):
    """a[start:end] of a contiguous array, along its first axis."""
    return a.copy(layout="C")(a, types.intp, types.intp), emit_part


@intrinsic
def tail(typingctx, a, start):
    """a[start:] of a flat array."""
    return a.copy(layout="C")(a, types.intp), emit_part


@intrinsic
def matrix(typingctx, a, rows, columns):
    """A flat array of rows * columns numbers as (rows, columns)."""
    view = a.copy(ndim=2, layout="C")

    def codegen(context, builder, signature, args):
        array = context.make_array(a)(context, builder, args[0])
        strides = [builder.mul(args[2], array.itemsize), array.itemsize]
        start = context.get_constant(types.intp, 0)
        return emit_view(context, builder, view, array, start, args[1:], strides)

    return view(a, types.intp, types.intp), codegen


@intrinsic
def row(typingctx, a, i):
    """a[i] of a contiguous array of two or more dimensions."""
    view = a.copy(ndim=a.ndim - 1, layout="C")

    def codegen(context, builder, signature, args):
        array = context.make_array(a)(context, builder, args[0])
        _, *shape = cgutils.unpack_tuple(builder, array.shape)
        stride, *strides = cgutils.unpack_tuple(builder, array.strides)
        start = builder.mul(args[1], stride)
        return emit_view(context, builder, view, array, start, shape, strides)

    return view(a, types.intp), codegen


def emit_part(context, builder, signature, args):
    """a[start:end], or a[start:] if no end is given."""
    kind = signature.return_type
    array = context.make_array(signature.args[0])(context, builder, args[0])
    length, *shape = cgutils.unpack_tuple(builder, array.shape)
    strides = cgutils.unpack_tuple(builder, array.strides)
    if kind.ndim == 1:  # a row of an array whose rows have gaps between them is contiguous
        strides = [array.itemsize]
    count = builder.sub(args[2] if len(args) > 2 else length, args[1])
    start = builder.mul(args[1], strides[0])
    return emit_view(context, builder, kind, array, start, [count, *shape], strides)


def emit_view(context, builder, kind, array, start, shape, strides):
    """The array of these extents from byte `start` on, without an owner."""
    view = context.make_array(kind)(context, builder)
    populate_array(
        view,
        data=cgutils.pointer_add(builder, array.data, start),
        shape=shape,
        strides=strides,
        itemsize=array.itemsize,
        meminfo=None,
    )
    return view._getvalue()
