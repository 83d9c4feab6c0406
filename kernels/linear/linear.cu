// Matrix product for T tasks with their own weights: see reference.py. x (N, I), y (N, O), w (O, I) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum. The three
// products differ in nothing but the steps through their matrices.
//
//   v1  a thread for each result, which reads its row and its column from memory
//   v2  tiles of 64 x 64 results from slices in shared memory (common.cu): a number from memory serves 64 products
// There is no v3 as for convolutions: a net's linear layers are a head of 64 x 5 or so, a tile or two for each task. Not yet timed on a GPU.
#define EXTENTS int N, int I, int O, int pairs
#define OPERANDS(a, b) ARRAY(real, a), ARRAY(real, b), ARRAY(real, a##2), ARRAY(real, b##2)

// result[row, column] = sum_k a[row per_row + k per_a] b[column per_column + k per_b]
struct Matrices { int rows, columns, depth, per_row, per_a, per_column, per_b; };

// y[n,o] = sum_i x[n,i] w[o,i]      dx[n,i] = sum_o dy[n,o] w[o,i]      dw[o,i] = sum_n dy[n,o] x[n,i]
__device__ __forceinline__ Matrices forward_matrices(int N, int I, int O) { return {N, O, I, I, 1, I, 1}; }
__device__ __forceinline__ Matrices backward_x_matrices(int N, int I, int O) { return {N, I, O, O, 1, 1, I}; }
__device__ __forceinline__ Matrices backward_w_matrices(int N, int I, int O) { return {O, I, N, 1, O, 1, I}; }

// ---- v1 ---------------------------------------------------------------------------------------------------------------------

struct Dot {
    const real *a, *b;
    Matrices of;
    __device__ real at(int i) const
    {
        int row = i / of.columns, column = i % of.columns;
        real sum = 0;
        for (int k = 0; k < of.depth; k++) sum += a[row * of.per_row + k * of.per_a] * b[column * of.per_column + k * of.per_b];
        return sum;
    }
};

#define PLAIN(out, a, b, matrices) \
    Matrices of = matrices(N, I, O); \
    plain_product(OF_TASK(out), of.rows * of.columns, pairs, Dot{OF_TASK(a), OF_TASK(b), of}, Dot{OF_TASK(a##2), OF_TASK(b##2), of})

extern "C" __global__ void linear_forward_v1(OUTPUT(real, y), OPERANDS(x, w), EXTENTS) { PLAIN(y, x, w, forward_matrices); }
extern "C" __global__ void linear_backward_x_v1(OUTPUT(real, dx), OPERANDS(dy, w), EXTENTS) { PLAIN(dx, dy, w, backward_x_matrices); }
extern "C" __global__ void linear_backward_w_v1(OUTPUT(real, dw), OPERANDS(x, dy), EXTENTS) { PLAIN(dw, dy, x, backward_w_matrices); }

// ---- v2 ---------------------------------------------------------------------------------------------------------------------

// A matrix as an operand, with the steps from one index and from one k to the next.
struct Strided {
    const real *from;
    int per_index, per_k;
    __device__ __forceinline__ real at(int index, int k) const { return from[index * per_index + k * per_k]; }
};

struct RowMajor {
    real *to;
    int columns;
    __device__ __forceinline__ void put(int row, int column, real value) const { to[row * columns + column] = value; }
};

#define TILED(out, a, b, matrices, a_k_first, b_k_first) \
    __shared__ Slice a_slice, b_slice; \
    Matrices of = matrices(N, I, O); \
    tiled_product<a_k_first, b_k_first>( \
        RowMajor{OF_TASK(out), of.columns}, a_slice, b_slice, Strided{OF_TASK(a), of.per_row, of.per_a}, \
        Strided{OF_TASK(b), of.per_column, of.per_b}, Strided{OF_TASK(a##2), of.per_row, of.per_a}, \
        Strided{OF_TASK(b##2), of.per_column, of.per_b}, pairs, of.rows, of.columns, of.depth)

extern "C" __global__ void __launch_bounds__(THREADS) linear_forward_v2(OUTPUT(real, y), OPERANDS(x, w), EXTENTS)
{
    TILED(y, x, w, forward_matrices, true, true);
}

extern "C" __global__ void __launch_bounds__(THREADS) linear_backward_x_v2(OUTPUT(real, dx), OPERANDS(dy, w), EXTENTS)
{
    TILED(dx, dy, w, backward_x_matrices, true, false);
}

extern "C" __global__ void __launch_bounds__(THREADS) linear_backward_w_v2(OUTPUT(real, dw), OPERANDS(x, dy), EXTENTS)
{
    TILED(dw, dy, x, backward_w_matrices, false, false);
}
