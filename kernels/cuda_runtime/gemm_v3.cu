// Products of matrices, v3: result[row, column] = sum_k a(row, k) b(column, k).
//
// A block of LANES threads has TILE x TILE results, each thread 8 x 8 of them: 4 loads of 16 bytes from shared memory for 64 products. As
// it adds up one slice of SLICE k's, the next is on its way from memory to registers; it goes into the other one of two buffers, so that
// there is one barrier for each slice. The two products of an R-pass are one loop: the halves of a slice are then the same SLICE / 2 k's of
// both (of one product, k's behind one another), and what it costs to find out where a k lies, and whether a window sees it, is paid once.
//
// A scheduler issues one instruction a cycle, product or not, so little else may stand in the loop. Where a k lies is found out by one
// thread, a slice ahead, and told to the others; whether a column sees it is two comparisons without a branch; where a row begins is
// looked up. So of some 710 instructions of a slice 512 are products (float, sm_90).
//
// Numbers come from memory one by one: rows of parameters begin anywhere in the matrix (T, P), and windows hang over borders. Results go
// there four at a time where four neighbours lie together, at 16 bytes.
//
// What is multiplied is a Plan's to say:
//   int rows, columns, depth       the extents; mid, lo: k is a Place of a box of any height, mid and lo across
//   int per_row                    a(row, k) = a_from[row per_row + step.a]
//   Step step(Place k)             a, b: what k adds to the places of both operands; row, column: what it adds to where b looks
//   Column column(int i)           b(i, k) = b_from[column.at + step.b] if (column.row + step.row, column.column + step.column) is a place
//   int seen_rows, seen_columns    of so many rows and columns, else 0
//   int place(int i), to_row       result[row, i] lies at place(i) + row to_row
//   bool in_order                  whether place(i) counts as i does, for to_row of them at a time
// None of it divides but `column` and `place`, once for each thread and column, and the first Place of a thread.
enum { LANES = 64, MINE = 8, HALF = TILE / 2, SLICE = sizeof(real) == 4 ? 8 : 4, UNROLLED = sizeof(real) == 4 ? 8 : 2 };
// (float64: as much as there are registers for.)

struct __align__(16) Step { int a, b, row, column; };
struct __align__(16) Column { int at, row, column; };
struct __align__(16) Quad { real of[4]; };
enum { NOWHERE = -(1 << 30) };                          // a row, or what is added to one, from where nothing is seen

// Both buffers of both operands and of what their k's add; where the block's rows begin, and its columns.
struct Shared {
    __align__(16) real a[2][SLICE][TILE + PAD];
    __align__(16) real b[2][SLICE][TILE + PAD];
    Step steps[2][SLICE];
    __align__(16) int rows[TILE];
    Column columns[TILE];
};

struct Pair { const real *a, *b; };                     // the operands of one product, for this block's task

// What one thread brings for each half of a slice. Of a, and of b where B_K_FIRST says that neighbours in k lie together in memory, one k
// of EACH_HALF neighbouring rows or columns, 16 bytes in shared memory; of any other b one column and EACH_HALF k's.
enum { EACH_HALF = SLICE / 2 };
template <class T> struct __align__(EACH_HALF * sizeof(T) < 16 ? EACH_HALF * sizeof(T) : 16) Few { T of[EACH_HALF]; };

template <bool B_K_FIRST, bool TWO, class Plan> struct Loader {
    enum { OF_SLICE = TWO ? EACH_HALF : SLICE, SHIFT = TWO ? 0 : HALF };    // k's in a slice; rows from half to half
    const Plan &plan;
    Shared &shared;
    Pair pairs[2];                                      // of each product: pointers that move along with the slices (see `bring`)
    int at_a, at_b;                                     // how far they have moved
    Column mine;                                        // column number threadIdx.x of the block
    int k, end, fast, slow;                             // the next slice's first k; where k's end; this thread's place among k's and rows
    Place own, by;                                      // its k in the slice to be told next; how far from one slice to the next
    Few<real> next_a[2], next_b[2];

    __device__ __forceinline__ Loader(const Plan &plan, Shared &shared, Pair first, Pair second, int row, Column mine, int begin, int end)
        : plan(plan), shared(shared), pairs{first, second}, at_a(0), at_b(0), mine(mine), k(begin), end(end), fast(threadIdx.x % OF_SLICE),
          slow(threadIdx.x / OF_SLICE), own(place_of(begin + fast, plan.mid, plan.lo)), by(place_of(OF_SLICE, plan.mid, plan.lo))
    {
        shared.rows[threadIdx.x] = (row < plan.rows ? row : plan.rows - 1) * plan.per_row;     // beyond the last: any, they are not stored
        shared.columns[threadIdx.x] = mine;
    }

    // The row, or column, of number j of a half.
    __device__ __forceinline__ int at(int half, int j) const { return half * SHIFT + slow * EACH_HALF + j; }

    // What the k's of the next slice add: each found out by one thread, for all to read.
    __device__ __forceinline__ void tell(int buffer)
    {
        if (threadIdx.x >= OF_SLICE) return;
        shared.steps[buffer][threadIdx.x] = k + fast < end ? plan.step(own) : Step{0, 0, NOWHERE, 0};
        own.advance(by, plan.mid, plan.lo);
    }

    // The next slice, of which all have been told, from memory to registers. From pointers that stayed where the task begins NVRTC would
    // work out task times step anew, in 64 bits, for every number.
    __device__ __forceinline__ void bring(int buffer)
    {
        const Step *steps = shared.steps[buffer];
        Step my_step = steps[fast], first = steps[B_K_FIRST ? fast : 0];
        bool there = k + fast < end, seen[EACH_HALF];
        int places[EACH_HALF];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (half == 0 || TWO) pairs[half].a += my_step.a - at_a, pairs[half].b += first.b - at_b;
            const Pair &pair = pairs[TWO ? half : 0];
            Few<int> rows = *reinterpret_cast<const Few<int> *>(&shared.rows[at(half, 0)]);
#pragma unroll
            for (int j = 0; j < EACH_HALF; j++) {
                next_a[half].of[j] = there ? pair.a[rows.of[j]] : real(0);
                if (half == 0 || !TWO) {                // two products see the same places
                    Column column = B_K_FIRST ? shared.columns[at(half, j)] : mine;
                    Step step = steps[B_K_FIRST ? fast : half * EACH_HALF + j];
                    seen[j] = (unsigned(column.row + step.row) < unsigned(plan.seen_rows))
                              & (unsigned(column.column + step.column) < unsigned(plan.seen_columns));
                    places[j] = column.at + (step.b - first.b);
                }
                next_b[half].of[j] = seen[j] ? pair.b[places[j]] : real(0);
            }
        }
        at_a = my_step.a, at_b = first.b;
        k += OF_SLICE;
    }

    // From registers to a buffer of shared memory.
    __device__ __forceinline__ void put(int buffer)
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int dk = fast + (TWO ? half * EACH_HALF : 0), first = at(half, 0);
            *reinterpret_cast<Few<real> *>(&shared.a[buffer][dk][first]) = next_a[half];
            if (B_K_FIRST) *reinterpret_cast<Few<real> *>(&shared.b[buffer][dk][first]) = next_b[half];
#pragma unroll
            for (int j = 0; j < EACH_HALF && !B_K_FIRST; j++) shared.b[buffer][half * EACH_HALF + j][threadIdx.x] = next_b[half].of[j];
        }
    }
};

// A thread's results are four quarters: rows r .. r+3 and HALF + r .. , columns likewise, so that a warp's loads meet in no bank. Threads
// go in pairs down the rows: of 16 bytes each, a warp's load takes two requests where thread t ^ 1 or t ^ 2 wants what t does, else four.
__device__ __forceinline__ int my_row(int i) { return i / 4 * HALF + (threadIdx.x / 16 * 2 + threadIdx.x % 2) * 4 + i % 4; }
__device__ __forceinline__ int my_column(int j) { return j / 4 * HALF + threadIdx.x % 16 / 2 * 4 + j % 4; }

__device__ __forceinline__ void load_mine(real (&mine)[MINE], const real *from, int first)
{
    Quad low = *reinterpret_cast<const Quad *>(from + first), high = *reinterpret_cast<const Quad *>(from + HALF + first);
#pragma unroll
    for (int i = 0; i < 4; i++) mine[i] = low.of[i], mine[i + 4] = high.of[i];
}

__device__ __forceinline__ void add_slice(real (&sum)[MINE][MINE], const Shared &shared, int buffer)
{
#pragma unroll UNROLLED
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

// The sum over k's begin .. end-1: slices one after the other, the next one always on its way. Also behind the last, where nothing is
// brought any more: behind a branch of their own the loads could not be spread among the products.
template <bool B_K_FIRST, bool TWO, class Plan>
__device__ __forceinline__ void add_slices(real (&sum)[MINE][MINE], Shared &shared, Loader<B_K_FIRST, TWO, Plan> loader)
{
    loader.tell(0);
    __syncthreads();
    loader.bring(0);
    loader.put(0);
    loader.tell(1);
    __syncthreads();
    for (int buffer = 0; ; buffer ^= 1) {
        bool more = loader.k < loader.end;
        loader.bring(buffer ^ 1);
        add_slice(sum, shared, buffer);
        if (!more) break;
        loader.put(buffer ^ 1);
        loader.tell(buffer);
        __syncthreads();
    }
}

// A thread's results to where they belong, WIDTH neighbours at a time.
template <int WIDTH, class Plan>
__device__ __forceinline__ void store(real *out, const Plan &plan, int first_row, int first_column, const real (&sum)[MINE][MINE])
{
#pragma unroll
    for (int j = 0; j < MINE; j += WIDTH) {
        int i = first_column + my_column(j);
        if (i >= plan.columns) continue;
        real *to = out + plan.place(i);
#pragma unroll
        for (int r = 0; r < MINE; r++) {
            int row = first_row + my_row(r);
            if (row >= plan.rows) continue;
            if constexpr (WIDTH == 1) to[row * plan.to_row] = sum[r][j];
            else *reinterpret_cast<Quad *>(to + row * plan.to_row) = {sum[r][j], sum[r][j + 1], sum[r][j + 2], sum[r][j + 3]};
        }
    }
}

// Tile number `tile` of the columns and blockIdx.y / parts of the rows; where there are few tiles the k's are dealt to `parts` blocks, part
// by part, and each leaves its sum in results of its own, which vector_add_parts adds up in order.
template <bool B_K_FIRST, class Plan>
__device__ __forceinline__ void deep_product(real *out, Shared &shared, const Plan &plan, int tile, Pair first, Pair second, int pairs,
                                             int parts, int count)
{
    int first_row = blockIdx.y / parts * TILE, part = blockIdx.y % parts, row = first_row + threadIdx.x, i = tile * TILE + threadIdx.x;
    int chunk = (plan.depth + parts * SLICE - 1) / (parts * SLICE) * SLICE, begin = part * chunk;
    int end = begin + chunk < plan.depth ? begin + chunk : plan.depth;
    Column mine = i < plan.columns ? plan.column(i) : Column{0, NOWHERE, 0};
    real sum[MINE][MINE] = {};
    if (begin < end && pairs == 1)
        add_slices(sum, shared, Loader<B_K_FIRST, false, Plan>(plan, shared, first, second, row, mine, begin, end));
    else if (begin < end)
        add_slices(sum, shared, Loader<B_K_FIRST, true, Plan>(plan, shared, first, second, row, mine, begin, end));
    out += (long long)part * count;
    bool in_fours = plan.in_order && plan.to_row % 4 == 0 && reinterpret_cast<unsigned long long>(out) % alignof(Quad) == 0;
    if (in_fours) store<4>(out, plan, first_row, tile * TILE, sum);
    else store<1>(out, plan, first_row, tile * TILE, sum);
}
