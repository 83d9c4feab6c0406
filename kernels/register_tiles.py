"""The one inner loop of all matrix products on the CPU: sums of outer products, gathered from anywhere.

    c[rows_c[r] + j]  +=  sum_{k0 <= k < k1}  a[rows_a[r] + steps_a[k]] * b[steps_b[k] + j]          0 <= j < width

a, b and c are flat arrays and the offsets say where in them a row or a column lies. So a convolution needs no patch matrix: the offsets
of the pixels that a tap of the filter sees are enough, and the very same loop is a matrix product, and each of its two transposes.

A tile of c, 6 rows by 4 vectors, stays in registers for all k; each step loads 4 vectors of b and 6 numbers of a, and does 24 vector
multiply-adds. (Numba's own loops cannot say this: the compiler keeps no array in registers. So the tile is written in LLVM's language.)
Every entry of c adds its k in order, whatever the tile it falls in: the bits depend on no thread count and no tile size.
"""
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = bool(binding.get_host_cpu_features().get("avx512f"))     # 32 registers of 64 bytes; else count on 16 of 32
VECTOR = 64 if WIDE else 32                                      # bytes
KMAX = 96                                                       # steps at a time: 128 rows of b of 4 vectors fit in the first-level cache


def tile(rows, vectors):
    """tile(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j): the sum above, k0 < k1, for `rows` rows from r and
    `vectors` vectors from column j."""
    def codegen(context, builder, signature, args):
        number = context.get_data_type(signature.args[0].dtype)
        size, integer = context.get_abi_sizeof(number), ir.IntType(64)
        vector = ir.VectorType(number, VECTOR // size)
        c, a, b, rows_c, rows_a, steps_a, steps_b = (
            context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 1, 2, 3, 4, 6, 7))
        r, k0, k1, j = args[5], args[8], args[9], args[10]

        def number_at(array, index):
            return builder.load(builder.gep(array, [index]))

        def vectors_at(array, index):
            return [builder.bitcast(builder.gep(array, [builder.add(index, integer(v * vector.count))]), vector.as_pointer())
                    for v in range(vectors)]

        row = [builder.add(r, integer(i)) for i in range(rows)]
        places = [p for i in row for p in vectors_at(c, builder.add(number_at(rows_c, i), j))]
        lines = [builder.gep(a, [number_at(rows_a, i)]) for i in row]
        start = [builder.load(p, align=size) for p in places]
        entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("done")
        builder.branch(loop)

        builder.position_at_end(loop)
        k, sums = builder.phi(integer), [builder.phi(vector) for _ in start]
        bs = [builder.load(p, align=size) for p in vectors_at(b, builder.add(number_at(steps_b, k), j))]
        step, new = number_at(steps_a, k), []
        for i, line in enumerate(lines):
            broadcast = splat(builder, number_at(line, step), vector)
            new += [multiply_add(builder, broadcast, bs[v], sums[i * vectors + v]) for v in range(vectors)]
        following = builder.add(k, integer(1))
        builder.cbranch(builder.icmp_signed("<", following, k1), loop, done)
        for phi, first, then in zip([k, *sums], [k0, *start], [following, *new], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(then, loop)

        builder.position_at_end(done)
        for value, p in zip(new, places, strict=True):
            builder.store(value, p, align=size)
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j):
        return types.void(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j), codegen
    return run


def splat(builder, value, vector):
    """`value` in every lane."""
    undefined, lane = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(undefined, value, lane(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(lane, vector.count), [0] * vector.count))


def multiply_add(builder, x, y, z):
    """x y + z, rounded once where the machine can."""
    kind = f"v{x.type.count}f{64 if isinstance(x.type.element, ir.DoubleType) else 32}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), f"llvm.fmuladd.{kind}")
    return builder.call(function, [x, y, z])


FOUR = 4 if WIDE else 2
six_by_four, six_by_two, six_by_one = tile(6, FOUR), tile(6, 2), tile(6, 1)
two_by_four, two_by_two, two_by_one = tile(2, FOUR), tile(2, 2), tile(2, 1)
one_by_four, one_by_two, one_by_one = tile(1, FOUR), tile(1, 2), tile(1, 1)


@njit
def accumulate(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, width):
    """The sum above for rows r0 .. r1; width is a multiple of a vector."""
    size = VECTOR // c.itemsize
    for first in range(k0, k1, KMAX):
        last, j = min(first + KMAX, k1), 0
        while j < width:
            vectors, r = min((width - j) // size, FOUR), r0
            while r < r1:
                rows = 6 if r + 6 <= r1 else 2 if r + 2 <= r1 else 1
                if vectors == FOUR:
                    if rows == 6:
                        six_by_four(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                    elif rows == 2:
                        two_by_four(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                    else:
                        one_by_four(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                elif vectors >= 2:
                    if rows == 6:
                        six_by_two(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                    elif rows == 2:
                        two_by_two(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                    else:
                        one_by_two(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                elif rows == 6:
                    six_by_one(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                elif rows == 2:
                    two_by_one(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                else:
                    one_by_one(c, a, b, rows_c, rows_a, r, steps_a, steps_b, first, last, j)
                r += rows
            j += size * (FOUR if vectors == FOUR else 2 if vectors >= 2 else 1)


# ---- transposing, a square block of registers at a time ------------------------------------------------------------------

def exchange(builder, rows, step):
    """One round of a transposition: rows i and i + step exchange the halves of each 2 step lanes that lie off the diagonal."""
    count, rows = len(rows), list(rows)
    lane = ir.IntType(32)
    for i in range(count):
        if not i & step:
            upper, lower = rows[i], rows[i | step]
            for place, mask in ((i, [e if not e & step else count + e - step for e in range(count)]),
                                (i | step, [e + step if not e & step else count + e for e in range(count)])):
                rows[place] = builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(lane, count), mask))
    return rows


@intrinsic
def transpose_block(typingctx, target, rows_t, j, source, rows_s, i):
    """target[rows_t[j + b] + i + a] = source[rows_s[i + a] + j + b] for a, b = 0 .. lanes - 1."""
    def codegen(context, builder, signature, args):
        number = context.get_data_type(signature.args[0].dtype)
        size, integer = context.get_abi_sizeof(number), ir.IntType(64)
        vector = ir.VectorType(number, VECTOR // size)
        target, rows_t, source, rows_s = (context.make_array(signature.args[n])(context, builder, args[n]).data for n in (0, 1, 3, 4))

        def places(array, rows, first, column):
            for n in range(vector.count):
                row = builder.load(builder.gep(rows, [builder.add(first, integer(n))]))
                yield builder.bitcast(builder.gep(array, [builder.add(row, column)]), vector.as_pointer())

        block = [builder.load(p, align=size) for p in places(source, rows_s, args[5], args[2])]
        step = 1
        while step < vector.count:
            block, step = exchange(builder, block, step), 2 * step
        for value, p in zip(block, places(target, rows_t, args[2], args[5]), strict=True):
            builder.store(value, p, align=size)
        return context.get_dummy_value()
    return types.void(target, rows_t, j, source, rows_s, i), codegen


@njit
def transpose(target, rows_t, source, rows_s):
    """target[rows_t[j] + i] = source[rows_s[i] + j] for all rows of both: flat arrays whose numbers are neighbours."""
    size, I, J = VECTOR // target.itemsize, len(rows_s), len(rows_t)
    for j in range(0, J, size):                                      # i inside: whole cache lines of the target, one after the other
        for i in range(0, I, size):
            if i + size <= I and j + size <= J:
                transpose_block(target, rows_t, j, source, rows_s, i)
            else:
                for a in range(i, min(i + size, I)):
                    for b in range(j, min(j + size, J)):
                        target[rows_t[b] + a] = source[rows_s[a] + b]
