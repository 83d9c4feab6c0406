// The text that precedes every operation's own when it is compiled. It includes no
// headers.
//
// REAL is float or double. An array is an address and the step from the numbers of one
// task to those of the next (0: shared by all tasks). ARRAY and OUTPUT declare both;
// OF_TASK is the part of this block's task. All other extents are int: a task has less
// than 2^31 numbers.
typedef REAL real;

#define OUTPUT(type, a) type *a, long long a##_step
#define ARRAY(type, a) const type *a, long long a##_step
#define OF_TASK(a) (a + blockIdx.z * a##_step)

enum { THREADS = 256, TEAM = 128 };

// The number of the result that this thread computes.
__device__ __forceinline__ int my_element() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The sum of `value` over a block of TEAM threads, for all of them: by a tree, so that
// its order is the same in every launch.
__device__ real team_sum(real value)
{
    __shared__ real part[TEAM];
    int thread = threadIdx.x;
    part[thread] = value;
    __syncthreads();
    for (int half = TEAM / 2; half > 0; half /= 2) {
        if (thread < half) part[thread] += part[thread + half];
        __syncthreads();
    }
    real total = part[0];
    __syncthreads();  // before the next sum writes there
    return total;
}

// Shared memory whose size is an argument of the launch: an array of `type`, aligned to
// 16 bytes. (The tests on a CPU define a DYNAMIC_SHARED of their own.)
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    type *name = reinterpret_cast<type *>(name##_bytes)
#endif

// COUNT sums over a block, for all its threads, in an order that is the same in every
// launch: within each warp by exchange between lanes, then over the warps in order.
// `part` is shared memory for the sums of the warps.
enum { WARP = 32, MAX_SUMS = 5 };
typedef real PartialSums[MAX_SUMS][WARP];

template <int COUNT>
__device__ __forceinline__ void block_sums(real (&sum)[COUNT], PartialSums &part)
{
    int warps = blockDim.x / WARP;
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        for (int lane = WARP / 2; lane > 0; lane /= 2)
            sum[k] += __shfl_xor_sync(0xffffffff, sum[k], lane);
        if (threadIdx.x % WARP == 0) part[k][threadIdx.x / WARP] = sum[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        sum[k] = part[k][0];
        for (int warp = 1; warp < warps; warp++) sum[k] += part[k][warp];
    }
    __syncthreads();  // before the next sums write there
}

// Element i of a box of extents (any, A, B) as its three indices; `advance` adds a step
// without a division.
struct Index3 {
    int hi, mid, lo;
    __device__ __forceinline__ void advance(Index3 by, int A, int B)
    {
        hi += by.hi, mid += by.mid, lo += by.lo;
        if (lo >= B) lo -= B, mid++;
        if (mid >= A) mid -= A, hi++;
    }
};
__device__ __forceinline__ Index3 index3_of(int i, int A, int B)
{
    return {i / (A * B), i / B % A, i % B};
}

// The variance of x from the mean of (x - m)^2 and `rest`, the mean of x - m. m is the
// rounded mean of x; its rounding error is relative to m and may be large against the
// standard deviation. (Chan, Golub, LeVeque 1983, the corrected two-pass algorithm.)
// NaN stays NaN. Where both squares overflow, their difference would be NaN; the
// variance is then infinite, as in the reference kernel.
__device__ __forceinline__ real corrected(real mean_square, real rest)
{
    real variance = mean_square - rest * rest;
    bool overflow = variance != variance && mean_square == mean_square && rest - rest == 0;
    return overflow ? mean_square : variance < 0 ? 0 : variance;
}

// The index of number e of channel c among N images of C channels of L positions; e < N
// L.
__device__ __forceinline__ int channel_at(int e, int c, int C, int L)
{
    return (e / L * C + c) * L + e % L;
}

// ---- matrix products, v1 ------------------------------------------------------------
//
// out[i] = first.at(i), plus second.at(i) where there are two products: one thread per
// result.
template <class Sum>
__device__ __forceinline__ void product_v1(real *out, int count, int pairs, const Sum &first,
                                           const Sum &second)
{
    int i = my_element();
    if (i >= count) return;
    real sum = first.at(i);
    if (pairs == 2) sum += second.at(i);
    out[i] = sum;
}

// ---- v2 -----------------------------------------------------------------------------
//
// result[row, column] = sum_k a(row, k) b(column, k): a block of THREADS has TILE x
// TILE results. For every DEPTH k's the block loads a slice of both operands into
// shared memory. Each thread adds PER_SIDE x PER_SIDE products from there: 2 PER_SIDE
// loads for PER_SIDE^2 products. An operand is any type with at(index, k). K_FIRST says
// that neighbours in k are adjacent in its memory, so that neighbouring threads load
// them. PAD puts such loads into different banks.
enum { TILE = 64, DEPTH = 8, PER_SIDE = 4, PAD = 4, ACROSS = TILE / PER_SIDE };

typedef real Slice[DEPTH][TILE + PAD];

template <bool K_FIRST, class Operand>
__device__ __forceinline__ void load_slice(Slice &slice, const Operand &operand, int first,
                                           int count, int k, int depth)
{
    const int together = K_FIRST ? DEPTH : TILE, apart = THREADS / together;
    int fast = threadIdx.x % together, slow = threadIdx.x / together;
#pragma unroll
    for (; slow < (K_FIRST ? TILE : DEPTH); slow += apart) {
        int at = K_FIRST ? slow : fast, dk = K_FIRST ? fast : slow;
        bool exists = first + at < count && k + dk < depth;
        slice[dk][at] = exists ? operand.at(first + at, k + dk) : real(0);
    }
}

template <bool A_K_FIRST, bool B_K_FIRST, class A, class B>
__device__ __forceinline__ void add_product(real (&sum)[PER_SIDE][PER_SIDE], Slice &a, Slice &b,
                                            const A &rows, const B &columns, int M, int N,
                                            int depth)
{
    int row = threadIdx.x / ACROSS * PER_SIDE, column = threadIdx.x % ACROSS * PER_SIDE;
    for (int k = 0; k < depth; k += DEPTH) {
        load_slice<A_K_FIRST>(a, rows, blockIdx.y * TILE, M, k, depth);
        load_slice<B_K_FIRST>(b, columns, blockIdx.x * TILE, N, k, depth);
        __syncthreads();
#pragma unroll
        for (int dk = 0; dk < DEPTH; dk++)
#pragma unroll
            for (int i = 0; i < PER_SIDE; i++)
#pragma unroll
                for (int j = 0; j < PER_SIDE; j++) sum[i][j] += a[dk][row + i] * b[dk][column + j];
        __syncthreads();  // before the next slices overwrite these
    }
}

// One product or the sum of two: result.put(row, column, value) for each of its M x N
// results.
template <bool A_K_FIRST, bool B_K_FIRST, class A, class B, class Result>
__device__ __forceinline__ void product_v2(const Result &result, Slice &a, Slice &b, const A &rows,
                                           const B &columns, const A &rows2, const B &columns2,
                                           int pairs, int M, int N, int depth)
{
    real sum[PER_SIDE][PER_SIDE] = {};
    add_product<A_K_FIRST, B_K_FIRST>(sum, a, b, rows, columns, M, N, depth);
    if (pairs == 2) add_product<A_K_FIRST, B_K_FIRST>(sum, a, b, rows2, columns2, M, N, depth);
    int row = blockIdx.y * TILE + threadIdx.x / ACROSS * PER_SIDE,
        column = blockIdx.x * TILE + threadIdx.x % ACROSS * PER_SIDE;
    for (int i = 0; i < PER_SIDE; i++)
        for (int j = 0; j < PER_SIDE; j++)
            if (row + i < M && column + j < N) result.put(row + i, column + j, sum[i][j]);
}
