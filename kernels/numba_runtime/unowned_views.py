"""Arrays whose parts cost nothing to take."""

from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def unowned(typingctx, a):
    """The same array without an owner: for a compiled function that cuts many small parts from its arguments.

    Numba counts the references to an array's memory, by an atomic addition whenever a part is cut and another when it is done with; two
    threads that cut parts from one array wait for each other's. Whoever called keeps its memory alive, so there is nothing to count.
    """

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.return_type)(context, builder, args[0])
        array.meminfo, array.parent = (
            cgutils.get_null_value(field.type) for field in (array.meminfo, array.parent)
        )
        return array._getvalue()

    return a(a), codegen
