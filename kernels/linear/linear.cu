// Matrix product for T tasks with their own weights: see reference.py.
// x (N, I), y (N, O), w (O, I) of each task.
//
// Each kernel computes one product or the sum of two: pairs = 2 in the R-passes. The
// three kinds of products differ only in the steps through their matrices.
//
//   v1  one thread for each result, which reads its row and its column from memory
//   v2  tiles of 64 x 64 results from slices in shared memory (common.cu): a number
//       that is loaded once serves 64 products
//
// There is no v3: the linear layers of a net are a head of about 64 x 5, one or two
// tiles per task. Not timed on a GPU yet.
#define EXTENTS int N, int I, int O, int pairs
#define OPERANDS(a, b) ARRAY(real, a), ARRAY(real, b), ARRAY(real, a##2), ARRAY(real, b##2)

// result[row, column] = sum_k a[row per_row + k per_a] b[column per_column + k per_b]
struct Matrices {
    int rows, columns, depth, per_row, per_a, per_column, per_b;
};

// y[n,o] = sum_i x[n,i] w[o,i]
// dx[n,i] = sum_o dy[n,o] w[o,i]
// dw[o,i] = sum_n dy[n,o] x[n,i]
__device__ __forceinline__ Matrices forward_matrices(int N, int I, int O)
{
    return {N, O, I, I, 1, I, 1};
}
__device__ __forceinline__ Matrices backward_x_matrices(int N, int I, int O)
{
    return {N, I, O, O, 1, 1, I};
}
__device__ __forceinline__ Matrices backward_w_matrices(int N, int I, int O)
{
    return {O, I, N, 1, O, 1, I};
}

// ---- v1 -----------------------------------------------------------------------------

struct Dot {
    const real *a, *b;
    Matrices of;
    __device__ real at(int i) const
    {
        int row = i / of.columns, column = i % of.columns;
        real sum = 0;
        for (int k = 0; k < of.depth; k++)
            sum += a[row * of.per_row + k * of.per_a] * b[column * of.per_column + k * of.per_b];
        return sum;
    }
};

#define PRODUCT_V1(out, a, b, matrices) \
    Matrices of = matrices(N, I, O); \
    product_v1(OF_TASK(out), of.rows *of.columns, pairs, Dot{OF_TASK(a), OF_TASK(b), of}, \
               Dot{OF_TASK(a##2), OF_TASK(b##2), of})

extern "C" __global__ void linear_forward_v1(OUTPUT(real, y), OPERANDS(x, w), EXTENTS)
{
    PRODUCT_V1(y, x, w, forward_matrices);
}
extern "C" __global__ void linear_backward_x_v1(OUTPUT(real, dx), OPERANDS(dy, w), EXTENTS)
{
    PRODUCT_V1(dx, dy, w, backward_x_matrices);
}
extern "C" __global__ void linear_backward_w_v1(OUTPUT(real, dw), OPERANDS(x, dy), EXTENTS)
{
    PRODUCT_V1(dw, dy, x, backward_w_matrices);
}

// ---- v2 -----------------------------------------------------------------------------

// A matrix as an operand, with its steps from one index to the next and from one k to
// the next.
struct Strided {
    const real *from;
    int per_index, per_k;
    __device__ __forceinline__ real at(int index, int k) const
    {
        return from[index * per_index + k * per_k];
    }
};

struct RowMajor {
    real *to;
    int columns;
    __device__ __forceinline__ void put(int row, int column, real value) const
    {
        to[row * columns + column] = value;
    }
};

#define PRODUCT_V2(out, a, b, matrices, a_k_first, b_k_first) \
    __shared__ Slice a_slice, b_slice; \
    Matrices of = matrices(N, I, O); \
    product_v2<a_k_first, b_k_first>( \
        RowMajor{OF_TASK(out), of.columns}, a_slice, b_slice, \
        Strided{OF_TASK(a), of.per_row, of.per_a}, Strided{OF_TASK(b), of.per_column, of.per_b}, \
        Strided{OF_TASK(a##2), of.per_row, of.per_a}, \
        Strided{OF_TASK(b##2), of.per_column, of.per_b}, pairs, of.rows, of.columns, of.depth)

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_forward_v2(OUTPUT(real, y), OPERANDS(x, w), EXTENTS)
{
    PRODUCT_V2(y, x, w, forward_matrices, true, true);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_backward_x_v2(OUTPUT(real, dx), OPERANDS(dy, w), EXTENTS)
{
    PRODUCT_V2(dx, dy, w, backward_x_matrices, true, false);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_backward_w_v2(OUTPUT(real, dw), OPERANDS(x, dy), EXTENTS)
{
    PRODUCT_V2(dw, dy, x, backward_w_matrices, false, false);
}
