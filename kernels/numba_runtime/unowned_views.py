"""Arrays without reference counts, for compiled functions that slice a lot."""

from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def unowned(typingctx, a):
    """The same array without an owner.

    Numba counts the references to an array's memory. Each slice costs an atomic
    addition when it is made and another when it is dropped, and two threads that slice
    one array wait for each other. The caller keeps the memory alive until the compiled
    function returns, so nothing has to be counted.
    """

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.return_type)(context, builder, args[0])
        array.meminfo, array.parent = (
            cgutils.get_null_value(field.type) for field in (array.meminfo, array.parent)
        )
        return array._getvalue()

    return a(a), codegen
