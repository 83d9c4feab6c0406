// Products of matrices, v3: result[row, column] = sum_k a(row, k) b(column, k).
//
// A block of LANES threads has TILE x TILE results, each thread 8 x 8 of them: 4 loads of 16 bytes from shared memory for 64 products. While
// it adds up one slice of SLICE k's, the next is on its way from memory to registers; it goes into the other one of two buffers, so that
// there is one barrier for each slice. The two products of an R-pass are one loop: the halves of a slice are then the same SLICE / 2 k's of
// both (of one product, k's behind one another), and what it costs to find out where a k lies, and whether a window sees it, is paid once.
//
// Numbers come from memory one by one: rows of parameters begin anywhere in the matrix (T, P), and windows hang over borders.
//
// What is multiplied is a Plan's to say:
//   int rows, columns, depth       the extents; mid, lo: k is a Place of a box of any height, mid and lo across
//   int per_row                    a(row, k) = a_from[row per_row + step.a]
//   Step step(Place k)             a, b: what k adds to the places of both operands; row, column: what it adds to where b looks
//   Column column(int i)           b(i, k) = b_from[column.at + step.b] if (column.row + step.row, column.column + step.column) is a place
//   int seen_rows, seen_columns    of so many rows and columns, else 0
//   int place(int i), to_row       result[row, i] lies at place(i) + row to_row
// None of it divides but `column` and `place`, once for each thread and column, and the first Place of a thread.
enum { LANES = 64, MINE = 8, HALF = TILE / 2, SLICE = sizeof(real) == 4 ? 8 : 4 };     // float64: as many registers as there are

struct Step { int a, b, row, column; };
struct Column { int at, row, column; };
struct __align__(16) Quad { real of[4]; };

// Both buffers of both operands, and the block's columns.
struct Shared {
    __align__(16) real a[2][SLICE][TILE + PAD];
    __align__(16) real b[2][SLICE][TILE + PAD];
    Column columns[TILE];
};

struct Pair { const real *a, *b; };                     // the operands of one product, for this block's task

// What one thread brings for each half of a slice. Of a, and of b where B_K_FIRST says that neighbours in k lie together in memory, one k of
// EACH_HALF rows or columns; of any other b one column and EACH_HALF k's.
enum { EACH_HALF = SLICE / 2 };

template <bool B_K_FIRST, class Plan> struct Loader {
    const Plan &plan;
    Pair pairs[2];                                      // the product of each half
    const Column *columns;
    bool two;                                           // whether there are two
    int first_row, k, end;                              // the block's first row; the first k of the next slice; where the k's end
    int of_slice, fast, slow, shift;                    // k's in a slice; this thread's place among them, and among rows; from half to half
    Place own, by, common;                              // this thread's k; how far to its next; the first k of the slice
    real next_a[2][EACH_HALF], next_b[2][EACH_HALF];

    __device__ __forceinline__ Loader(const Plan &plan, Pair first, Pair second, bool two, const Column *columns, int first_row, int begin,
                                      int end)
        : plan(plan), pairs{first, two ? second : first}, columns(columns), two(two), first_row(first_row), k(begin), end(end),
          of_slice(two ? EACH_HALF : SLICE), fast(threadIdx.x % of_slice), slow(threadIdx.x / of_slice), shift(two ? 0 : LANES / SLICE),
          own(place_of(begin + fast, plan.mid, plan.lo)), by(place_of(of_slice, plan.mid, plan.lo)),
          common(place_of(begin, plan.mid, plan.lo))
    {
    }

    // The row, or column, of number j of a half.
    __device__ __forceinline__ int at(int half, int j) const { return slow + half * shift + j * (LANES / EACH_HALF); }

    // Where b of a column lies at a k; -1 if nothing is seen there.
    __device__ __forceinline__ int place_of_b(const Column &column, const Step &step, bool there) const
    {
        return there && unsigned(column.row + step.row) < unsigned(plan.seen_rows)
                   && unsigned(column.column + step.column) < unsigned(plan.seen_columns) ? column.at + step.b : -1;
    }

    // The next slice, from memory to registers.
    __device__ __forceinline__ void bring()
    {
        Step step = plan.step(own);
        bool there = k + fast < end;
        int places[EACH_HALF];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < EACH_HALF; j++) {
                int row = first_row + at(half, j);
                next_a[half][j] = there && row < plan.rows ? pairs[half].a[row * plan.per_row + step.a] : real(0);
                if (half == 0 || !two) {                // two products see the same places
                    if (B_K_FIRST) {
                        places[j] = place_of_b(columns[at(half, j)], step, there);
                    } else {
                        places[j] = place_of_b(columns[threadIdx.x], plan.step(common), k + half * EACH_HALF + j < end);
                        common.advance({0, 0, 1}, plan.mid, plan.lo);
                    }
                }
                next_b[half][j] = places[j] >= 0 ? pairs[half].b[places[j]] : real(0);
            }
        own.advance(by, plan.mid, plan.lo);
        k += of_slice;
    }

    // From registers to a buffer of shared memory.
    __device__ __forceinline__ void put(Shared &shared, int buffer) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < EACH_HALF; j++) {
                int dk = fast + (two ? half * EACH_HALF : 0);
                shared.a[buffer][dk][at(half, j)] = next_a[half][j];
                if (B_K_FIRST) shared.b[buffer][dk][at(half, j)] = next_b[half][j];
                else shared.b[buffer][half * EACH_HALF + j][threadIdx.x] = next_b[half][j];
            }
    }
};

// A thread's results are four quarters: rows r .. r+3 and HALF + r .. , columns likewise, so that a warp's loads meet in no bank.
__device__ __forceinline__ int my_row(int i) { return i / 4 * HALF + threadIdx.x / MINE * 4 + i % 4; }
__device__ __forceinline__ int my_column(int j) { return j / 4 * HALF + threadIdx.x % MINE * 4 + j % 4; }

__device__ __forceinline__ void load_mine(real (&mine)[MINE], const real *from, int first)
{
    Quad low = *reinterpret_cast<const Quad *>(from + first), high = *reinterpret_cast<const Quad *>(from + HALF + first);
#pragma unroll
    for (int i = 0; i < 4; i++) mine[i] = low.of[i], mine[i + 4] = high.of[i];
}

__device__ __forceinline__ void add_slice(real (&sum)[MINE][MINE], const Shared &shared, int buffer)
{
#pragma unroll 4
    for (int dk = 0; dk < SLICE; dk++) {
        real a[MINE], b[MINE];
        load_mine(a, shared.a[buffer][dk], my_row(0));
        load_mine(b, shared.b[buffer][dk], my_column(0));
#pragma unroll
        for (int i = 0; i < MINE; i++)
#pragma unroll
            for (int j = 0; j < MINE; j++) sum[i][j] += a[i] * b[j];
    }
}

// The sum over k's begin .. end-1: slices one after the other, the next one always on its way.
template <bool B_K_FIRST, class Plan>
__device__ __forceinline__ void add_slices(real (&sum)[MINE][MINE], Shared &shared, Loader<B_K_FIRST, Plan> loader)
{
    loader.bring();
    loader.put(shared, 0);
    __syncthreads();
    for (int buffer = 0; ; buffer ^= 1) {
        bool more = loader.k < loader.end;
        if (more) loader.bring();
        add_slice(sum, shared, buffer);
        if (!more) break;
        loader.put(shared, buffer ^ 1);
        __syncthreads();
    }
}

// Tile number `tile` of the columns and blockIdx.y / parts of the rows; where there are few tiles the k's are dealt to `parts` blocks, part
// by part, and each leaves its sum in results of its own, which vector_add_parts adds up in order.
template <bool B_K_FIRST, class Plan>
__device__ __forceinline__ void deep_product(real *out, Shared &shared, const Plan &plan, int tile, Pair first, Pair second, int pairs,
                                             int parts, int count)
{
    int first_row = blockIdx.y / parts * TILE, part = blockIdx.y % parts, column = tile * TILE + threadIdx.x;
    int chunk = (plan.depth + parts * SLICE - 1) / (parts * SLICE) * SLICE, begin = part * chunk;
    int end = begin + chunk < plan.depth ? begin + chunk : plan.depth;
    shared.columns[threadIdx.x] = column < plan.columns ? plan.column(column) : Column{0, -(1 << 30), 0};
    __syncthreads();
    real sum[MINE][MINE] = {};
    if (begin < end)
        add_slices(sum, shared, Loader<B_K_FIRST, Plan>(plan, first, second, pairs == 2, shared.columns, first_row, begin, end));
    out += (long long)part * count;
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        int i = tile * TILE + my_column(j);
        if (i >= plan.columns) continue;
        real *to = out + plan.place(i);
#pragma unroll
        for (int r = 0; r < MINE; r++)
            if (first_row + my_row(r) < plan.rows) to[(first_row + my_row(r)) * plan.to_row] = sum[r][j];
    }
}
