// What the kernels of every operation share; stands in front of each file when it is compiled. No headers: NVRTC needs none.
//
// REAL is float or double. An array is an address and the step from one task's numbers to the next (0: shared by all tasks); ARRAY and
// OUTPUT declare both, OF_TASK is the part of this block's task. All other extents are int: a task holds less than 2^31 numbers.
typedef REAL real;

#define OUTPUT(type, a) type *a, long long a##_step
#define ARRAY(type, a) const type *a, long long a##_step
#define OF_TASK(a) (a + blockIdx.z * a##_step)

enum { THREADS = 256, TEAM = 128 };

// The result that belongs to this thread.
__device__ __forceinline__ int my_element() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The sum of `value` over a block of TEAM threads, for all of them: a tree, in the same order at every launch.
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
    __syncthreads();                                    // before the next sum writes there
    return total;
}

// Shared memory whose size the launch says: an array of `type`, beginning at 16 bytes. (The tests on a CPU bring a ROOM of their own.)
#ifndef ROOM
#define ROOM(type, name) \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    type *name = reinterpret_cast<type *>(name##_bytes)
#endif

// COUNT sums over a block at once, for all its threads, in an order that is the same at every launch: within each warp by exchange, then
// over the warps as they come. `part` is shared memory of theirs.
enum { WARP = 32, MOST_SUMS = 5 };
typedef real Parts[MOST_SUMS][WARP];

template <int COUNT> __device__ __forceinline__ void block_sums(real (&sum)[COUNT], Parts &part)
{
    int warps = blockDim.x / WARP;
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        for (int lane = WARP / 2; lane > 0; lane /= 2) sum[k] += __shfl_xor_sync(0xffffffff, sum[k], lane);
        if (threadIdx.x % WARP == 0) part[k][threadIdx.x / WARP] = sum[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        sum[k] = part[k][0];
        for (int warp = 1; warp < warps; warp++) sum[k] += part[k][warp];
    }
    __syncthreads();                                    // before the next sums write there
}

// Number i of a box of any height, A and B across, as its three coordinates; `advance` walks on without a division.
struct Place {
    int hi, mid, lo;
    __device__ __forceinline__ void advance(Place by, int A, int B)
    {
        hi += by.hi, mid += by.mid, lo += by.lo;
        if (lo >= B) lo -= B, mid++;
        if (mid >= A) mid -= A, hi++;
    }
};
__device__ __forceinline__ Place place_of(int i, int A, int B) { return {i / (A * B), i / B % A, i % B}; }

// The variance from the mean square of x - m and its mean, `rest`: m is <x> but for rounding, which
// is relative to <x> and may be large against the standard deviation. NaN stays NaN.
__device__ __forceinline__ real corrected(real mean_square, real rest)
{
    real variance = mean_square - rest * rest;
    return variance < 0 ? 0 : variance;
}

// The values of one channel, among N images of C channels of L positions: number e of N L lies at channel_at(e, c, C, L).
__device__ __forceinline__ int channel_at(int e, int c, int C, int L) { return (e / L * C + c) * L + e % L; }

// ---- products of matrices, v1 ------------------------------------------------------------------------------------------------------
//
// out[i] = first.at(i), plus second.at(i) where there are two products: a thread for each result.
template <class Sum> __device__ __forceinline__ void plain_product(real *out, int count, int pairs, const Sum &first, const Sum &second)
{
    int i = my_element();
    if (i >= count) return;
    real sum = first.at(i);
    if (pairs == 2) sum += second.at(i);
    out[i] = sum;
}

// ---- v2 -----------------------------------------------------------------------------------------------------------------------------
//
// result[row, column] = sum_k a(row, k) b(column, k), by blocks of THREADS for TILE x TILE results. In turns of DEPTH k's the block
// brings a slice of both operands to shared memory, and each thread adds EACH x EACH products from there: 2 EACH loads for EACH^2
// products. An operand is anything with at(index, k); K_FIRST says that neighbours in k lie together in its memory, so that neighbouring
// threads load them. The pad makes such loads land in different banks.
enum { TILE = 64, DEPTH = 8, EACH = 4, PAD = 4, ACROSS = TILE / EACH };

typedef real Slice[DEPTH][TILE + PAD];

template <bool K_FIRST, class Operand>
__device__ __forceinline__ void bring_slice(Slice &slice, const Operand &operand, int first, int count, int k, int depth)
{
    const int together = K_FIRST ? DEPTH : TILE, apart = THREADS / together;
    int fast = threadIdx.x % together, slow = threadIdx.x / together;
#pragma unroll
    for (; slow < (K_FIRST ? TILE : DEPTH); slow += apart) {
        int at = K_FIRST ? slow : fast, dk = K_FIRST ? fast : slow;
        bool there = first + at < count && k + dk < depth;
        slice[dk][at] = there ? operand.at(first + at, k + dk) : real(0);
    }
}

template <bool A_K_FIRST, bool B_K_FIRST, class A, class B>
__device__ __forceinline__ void add_product(real (&sum)[EACH][EACH], Slice &a, Slice &b, const A &rows, const B &columns, int M, int N,
                                            int depth)
{
    int row = threadIdx.x / ACROSS * EACH, column = threadIdx.x % ACROSS * EACH;
    for (int k = 0; k < depth; k += DEPTH) {
        bring_slice<A_K_FIRST>(a, rows, blockIdx.y * TILE, M, k, depth);
        bring_slice<B_K_FIRST>(b, columns, blockIdx.x * TILE, N, k, depth);
        __syncthreads();
#pragma unroll
        for (int dk = 0; dk < DEPTH; dk++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[i][j] += a[dk][row + i] * b[dk][column + j];
        __syncthreads();                                // before the next slices overwrite these
    }
}

// One product or the sum of two, and result.put(row, column, value) for each of its M x N results.
template <bool A_K_FIRST, bool B_K_FIRST, class A, class B, class Result>
__device__ __forceinline__ void tiled_product(const Result &result, Slice &a, Slice &b, const A &rows, const B &columns, const A &rows2,
                                              const B &columns2, int pairs, int M, int N, int depth)
{
    real sum[EACH][EACH] = {};
    add_product<A_K_FIRST, B_K_FIRST>(sum, a, b, rows, columns, M, N, depth);
    if (pairs == 2) add_product<A_K_FIRST, B_K_FIRST>(sum, a, b, rows2, columns2, M, N, depth);
    int row = blockIdx.y * TILE + threadIdx.x / ACROSS * EACH, column = blockIdx.x * TILE + threadIdx.x % ACROSS * EACH;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            if (row + i < M && column + j < N) result.put(row + i, column + j, sum[i][j]);
}
