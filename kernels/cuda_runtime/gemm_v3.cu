// Matrix products, v3: result[row, column] = sum_k a(row, k) b(column, k).
//
// A block of LANES threads has TILE x TILE results, each thread 8 x 8 of them: 4 loads
// of 16 bytes from shared memory for 64 products. While the block adds up one slice of
// SLICE k's, the next slice is loaded from memory into registers, and then stored in
// the other one of two buffers, so that each slice needs one barrier. The two products
// of an R-pass are one loop. The halves of a slice are then the same SLICE / 2 k's of
// both products (of one product: consecutive k's), and the offsets of a k, and whether
// it is inside the image, are computed once for both.
//
// A scheduler issues one instruction per cycle, so the loop should contain little
// besides products. One thread computes the offsets of a k, one slice ahead, and shares
// them; whether a k is inside the image takes two comparisons without a branch; the
// offsets of rows are in a table. So of some 710 instructions of a slice 512 are
// products (float, sm_90).
//
// Numbers are loaded from memory one by one: rows of parameters begin at any address of
// the matrix (T, P), and windows cross the border of an image. Results are stored four
// at a time where four neighbours are adjacent and aligned to 16 bytes.
//
// A Plan says what is multiplied:
//   int rows, columns, depth      the extents
//   int mid, lo                   k is an Index3 in a box of extents (any, mid, lo)
//   int per_row                   a(row, k) = a_from[row per_row + step.a]
//   Step step(Index3 k)           a, b: what k adds to the offsets of both operands;
//                                 row, column: what k adds to the pixel of b
//   Column column(int i)          b(i, k) = b_from[column.at + step.b] if the pixel
//                                 (column.row + step.row, column.column + step.column)
//                                 is inside the image, else 0
//   int seen_rows, seen_columns   the extents of that image
//   int place(int i), to_row      result[row, i] has the offset place(i) + row to_row
//   bool contiguous               whether place(i + 1) = place(i) + 1 within to_row
//                                 columns
// Only `column` and `place` divide, once for each thread and column, and the first
// Index3 of a thread.
enum {
    LANES = 64,
    RESULTS = 8,
    HALF = TILE / 2,
    SLICE = sizeof(real) == 4 ? 8 : 4,
    UNROLLED = sizeof(real) == 4 ? 8 : 2
};
// (float64: as much as the registers allow.)

struct __align__(16) Step {
    int a, b, row, column;
};
struct __align__(16) Column {
    int at, row, column;
};
struct __align__(16) Vector4 {
    real of[4];
};
enum { OUTSIDE = -(1 << 30) };  // a row, or a step of rows, that is in no image

// Two buffers for both operands and for the steps of their k's; the offsets of the
// block's rows; its columns.
struct Shared {
    __align__(16) real a[2][SLICE][TILE + PAD];
    __align__(16) real b[2][SLICE][TILE + PAD];
    Step steps[2][SLICE];
    __align__(16) int rows[TILE];
    Column columns[TILE];
};

// The operands of one product, for this block's task.
struct Pair {
    const real *a, *b;
};

// What one thread loads for each half of a slice. Of a, and of b where B_K_FIRST says
// that neighbours in k are adjacent in memory: one k of HALF_SLICE neighbouring rows or
// columns, 16 bytes in shared memory. Of any other b: one column and HALF_SLICE k's.
enum { HALF_SLICE = SLICE / 2 };
template <class T>
struct __align__(HALF_SLICE * sizeof(T) < 16 ? HALF_SLICE * sizeof(T) : 16) Packed {
    T of[HALF_SLICE];
};

template <bool B_K_FIRST, bool TWO, class Plan>
struct Loader {
    enum {
        OF_SLICE = TWO ? HALF_SLICE : SLICE,
        SHIFT = TWO ? 0 : HALF
    };  // k's in a slice; rows from half to half
    const Plan &plan;
    Shared &shared;
    Pair pairs[2];  // of each product: pointers that advance with the slices, see `load`
    int at_a, at_b;  // how far they have advanced
    Column mine;  // column threadIdx.x of the block
    int k, end;  // the first k of the next slice; the end of the k's
    int fast, slow;  // the indices of this thread among the k's and among the rows
    Index3 own, by;  // its k in the slice that is published next; the step between slices
    Packed<real> next_a[2], next_b[2];

    __device__ __forceinline__ Loader(const Plan &plan, Shared &shared, Pair first, Pair second,
                                      int row, Column mine, int begin, int end)
        : plan(plan), shared(shared), pairs{first, second}, at_a(0), at_b(0), mine(mine), k(begin),
          end(end), fast(threadIdx.x % OF_SLICE), slow(threadIdx.x / OF_SLICE),
          own(index3_of(begin + fast, plan.mid, plan.lo)),
          by(index3_of(OF_SLICE, plan.mid, plan.lo))
    {
        // Rows beyond the last are computed from the last and not stored.
        shared.rows[threadIdx.x] = (row < plan.rows ? row : plan.rows - 1) * plan.per_row;
        shared.columns[threadIdx.x] = mine;
    }

    // The row, or column, of element j of a half.
    __device__ __forceinline__ int at(int half, int j) const
    {
        return half * SHIFT + slow * HALF_SLICE + j;
    }

    // Compute the steps of the k's of the next slice, each by one thread, and share
    // them.
    __device__ __forceinline__ void publish(int buffer)
    {
        if (threadIdx.x >= OF_SLICE) return;
        shared.steps[buffer][threadIdx.x] =
            k + fast < end ? plan.step(own) : Step{0, 0, OUTSIDE, 0};
        own.advance(by, plan.mid, plan.lo);
    }

    // Load the next slice, whose steps are shared, from memory into registers. The
    // pointers advance because NVRTC would compute task times step, in 64 bits, for
    // every number otherwise.
    __device__ __forceinline__ void load(int buffer)
    {
        const Step *steps = shared.steps[buffer];
        Step my_step = steps[fast], first = steps[B_K_FIRST ? fast : 0];
        bool exists = k + fast < end, seen[HALF_SLICE];
        int places[HALF_SLICE];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (half == 0 || TWO)
                pairs[half].a += my_step.a - at_a, pairs[half].b += first.b - at_b;
            const Pair &pair = pairs[TWO ? half : 0];
            Packed<int> rows = *reinterpret_cast<const Packed<int> *>(&shared.rows[at(half, 0)]);
#pragma unroll
            for (int j = 0; j < HALF_SLICE; j++) {
                next_a[half].of[j] = exists ? pair.a[rows.of[j]] : real(0);
                if (half == 0 || !TWO) {  // the same pixels for both products
                    Column column = B_K_FIRST ? shared.columns[at(half, j)] : mine;
                    Step step = steps[B_K_FIRST ? fast : half * HALF_SLICE + j];
                    seen[j] = (unsigned(column.row + step.row) < unsigned(plan.seen_rows)) &
                              (unsigned(column.column + step.column) < unsigned(plan.seen_columns));
                    places[j] = column.at + (step.b - first.b);
                }
                next_b[half].of[j] = seen[j] ? pair.b[places[j]] : real(0);
            }
        }
        at_a = my_step.a, at_b = first.b;
        k += OF_SLICE;
    }

    // Store it from registers in a buffer of shared memory.
    __device__ __forceinline__ void store_slice(int buffer)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int dk = fast + (TWO ? half * HALF_SLICE : 0), first = at(half, 0);
            *reinterpret_cast<Packed<real> *>(&shared.a[buffer][dk][first]) = next_a[half];
            if (B_K_FIRST)
                *reinterpret_cast<Packed<real> *>(&shared.b[buffer][dk][first]) = next_b[half];
#pragma unroll
            for (int j = 0; j < HALF_SLICE && !B_K_FIRST; j++)
                shared.b[buffer][half * HALF_SLICE + j][threadIdx.x] = next_b[half].of[j];
        }
    }
};

// The results of a thread are four quarters: rows r .. r+3 and HALF + r .. , columns
// likewise, so that the loads of a warp have no bank conflicts. Neighbouring threads
// are in neighbouring rows: the load of a warp, 16 bytes per thread, takes two requests
// where thread t ^ 1 or t ^ 2 loads the same as t, else four.
__device__ __forceinline__ int my_row(int i)
{
    return i / 4 * HALF + (threadIdx.x / 16 * 2 + threadIdx.x % 2) * 4 + i % 4;
}
__device__ __forceinline__ int my_column(int j)
{
    return j / 4 * HALF + threadIdx.x % 16 / 2 * 4 + j % 4;
}

__device__ __forceinline__ void load_operand(real (&mine)[RESULTS], const real *from, int first)
{
    Vector4 low = *reinterpret_cast<const Vector4 *>(from + first),
            high = *reinterpret_cast<const Vector4 *>(from + HALF + first);
#pragma unroll
    for (int i = 0; i < 4; i++) mine[i] = low.of[i], mine[i + 4] = high.of[i];
}

__device__ __forceinline__ void add_slice(real (&sum)[RESULTS][RESULTS], const Shared &shared,
                                          int buffer)
{
#pragma unroll UNROLLED
    for (int dk = 0; dk < SLICE; dk++) {
        real a[RESULTS], b[RESULTS];
        load_operand(a, shared.a[buffer][dk], my_row(0));
        load_operand(b, shared.b[buffer][dk], my_column(0));
#pragma unroll
        for (int i = 0; i < RESULTS; i++)
#pragma unroll
            for (int j = 0; j < RESULTS; j++) sum[i][j] += a[i] * b[j];
    }
}

// The sum over k's begin .. end-1, slice by slice, while the next slice is being
// loaded. That also runs after the last slice, when it loads nothing: behind a branch
// the compiler could not spread the loads among the products.
template <bool B_K_FIRST, bool TWO, class Plan>
__device__ __forceinline__ void add_slices(real (&sum)[RESULTS][RESULTS], Shared &shared,
                                           Loader<B_K_FIRST, TWO, Plan> loader)
{
    loader.publish(0);
    __syncthreads();
    loader.load(0);
    loader.store_slice(0);
    loader.publish(1);
    __syncthreads();
    for (int buffer = 0;; buffer ^= 1) {
        bool more = loader.k < loader.end;
        loader.load(buffer ^ 1);
        add_slice(sum, shared, buffer);
        if (!more) break;
        loader.store_slice(buffer ^ 1);
        loader.publish(buffer);
        __syncthreads();
    }
}

// Store the results of a thread, WIDTH neighbours at a time.
template <int WIDTH, class Plan>
__device__ __forceinline__ void store(real *out, const Plan &plan, int first_row, int first_column,
                                      const real (&sum)[RESULTS][RESULTS])
{
#pragma unroll
    for (int j = 0; j < RESULTS; j += WIDTH) {
        int i = first_column + my_column(j);
        if (i >= plan.columns) continue;
        real *to = out + plan.place(i);
#pragma unroll
        for (int r = 0; r < RESULTS; r++) {
            int row = first_row + my_row(r);
            if (row >= plan.rows) continue;
            if constexpr (WIDTH == 1)
                to[row * plan.to_row] = sum[r][j];
            else
                *reinterpret_cast<Vector4 *>(to + row * plan.to_row) = {
                    sum[r][j], sum[r][j + 1], sum[r][j + 2], sum[r][j + 3]};
        }
    }
}

// The tile with number `tile` among the columns and blockIdx.y / parts among the rows.
// Where there are few tiles, the k's are divided among `parts` blocks; each stores its
// sum in a part of its own, and vector_add_parts adds the parts in order.
template <bool B_K_FIRST, class Plan>
__device__ __forceinline__ void product_v3(real *out, Shared &shared, const Plan &plan, int tile,
                                           Pair first, Pair second, int pairs, int parts, int count)
{
    int first_row = blockIdx.y / parts * TILE, part = blockIdx.y % parts,
        row = first_row + threadIdx.x, i = tile * TILE + threadIdx.x;
    int chunk = (plan.depth + parts * SLICE - 1) / (parts * SLICE) * SLICE, begin = part * chunk;
    int end = begin + chunk < plan.depth ? begin + chunk : plan.depth;
    Column mine = i < plan.columns ? plan.column(i) : Column{0, OUTSIDE, 0};
    real sum[RESULTS][RESULTS] = {};
    if (begin < end && pairs == 1)
        add_slices(
            sum, shared,
            Loader<B_K_FIRST, false, Plan>(plan, shared, first, second, row, mine, begin, end));
    else if (begin < end)
        add_slices(
            sum, shared,
            Loader<B_K_FIRST, true, Plan>(plan, shared, first, second, row, mine, begin, end));
    out += (long long)part * count;
    bool in_fours = plan.contiguous && plan.to_row % 4 == 0 &&
                    reinterpret_cast<unsigned long long>(out) % alignof(Vector4) == 0;
    if (in_fours)
        store<4>(out, plan, first_row, tile * TILE, sum);
    else
        store<1>(out, plan, first_row, tile * TILE, sum);
}
