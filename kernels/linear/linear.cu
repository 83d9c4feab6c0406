// Matrix product for T tasks with their own weights: see reference.py. x (N, I), y (N, O), w (O, I) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads its row and its column from memory
//   v2  tiles of 64 x 64 results from slices in shared memory (common.cu): a number from memory serves 64 products
#define EXTENTS int N, int I, int O, int pairs

// y[n,o] = sum_i x[n,i] w[o,i]
__device__ real y_at(const real *x, const real *w, int n, int o, int I)
{
    real sum = 0;
    for (int i = 0; i < I; i++) sum += x[n * I + i] * w[o * I + i];
    return sum;
}

extern "C" __global__ void linear_forward_v1(OUTPUT(real, y), ARRAY(real, x), ARRAY(real, w), ARRAY(real, x2), ARRAY(real, w2), EXTENTS)
{
    int i = my_element();
    if (i >= N * O) return;
    real sum = y_at(OF_TASK(x), OF_TASK(w), i / O, i % O, I);
    if (pairs == 2) sum += y_at(OF_TASK(x2), OF_TASK(w2), i / O, i % O, I);
    OF_TASK(y)[i] = sum;
}

// dx[n,i] = sum_o dy[n,o] w[o,i]
__device__ real dx_at(const real *dy, const real *w, int n, int i, int I, int O)
{
    real sum = 0;
    for (int o = 0; o < O; o++) sum += dy[n * O + o] * w[o * I + i];
    return sum;
}

extern "C" __global__ void linear_backward_x_v1(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, w), ARRAY(real, dy2), ARRAY(real, w2),
                                                EXTENTS)
{
    int i = my_element();
    if (i >= N * I) return;
    real sum = dx_at(OF_TASK(dy), OF_TASK(w), i / I, i % I, I, O);
    if (pairs == 2) sum += dx_at(OF_TASK(dy2), OF_TASK(w2), i / I, i % I, I, O);
    OF_TASK(dx)[i] = sum;
}

// dw[o,i] = sum_n dy[n,o] x[n,i]
__device__ real dw_at(const real *x, const real *dy, int o, int i, int N, int I, int O)
{
    real sum = 0;
    for (int n = 0; n < N; n++) sum += dy[n * O + o] * x[n * I + i];
    return sum;
}

extern "C" __global__ void linear_backward_w_v1(OUTPUT(real, dw), ARRAY(real, x), ARRAY(real, dy), ARRAY(real, x2), ARRAY(real, dy2),
                                                EXTENTS)
{
    int i = my_element();
    if (i >= O * I) return;
    real sum = dw_at(OF_TASK(x), OF_TASK(dy), i / I, i % I, N, I, O);
    if (pairs == 2) sum += dw_at(OF_TASK(x2), OF_TASK(dy2), i / I, i % I, N, I, O);
    OF_TASK(dw)[i] = sum;
}

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

// y[n,o]: rows n of x and rows o of w, along i.
extern "C" __global__ void __launch_bounds__(THREADS) linear_forward_v2(OUTPUT(real, y), ARRAY(real, x), ARRAY(real, w), ARRAY(real, x2),
                                                                        ARRAY(real, w2), EXTENTS)
{
    __shared__ Slice a, b;
    Results sum = {};
    add_product<true, true>(sum, a, b, Strided{OF_TASK(x), I, 1}, Strided{OF_TASK(w), I, 1}, N, O, I);
    if (pairs == 2) add_product<true, true>(sum, a, b, Strided{OF_TASK(x2), I, 1}, Strided{OF_TASK(w2), I, 1}, N, O, I);
    put_all(sum, RowMajor{OF_TASK(y), O}, N, O);
}

// dx[n,i]: rows n of dy and columns i of w, along o.
extern "C" __global__ void __launch_bounds__(THREADS) linear_backward_x_v2(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, w),
                                                                           ARRAY(real, dy2), ARRAY(real, w2), EXTENTS)
{
    __shared__ Slice a, b;
    Results sum = {};
    add_product<true, false>(sum, a, b, Strided{OF_TASK(dy), O, 1}, Strided{OF_TASK(w), 1, I}, N, I, O);
    if (pairs == 2) add_product<true, false>(sum, a, b, Strided{OF_TASK(dy2), O, 1}, Strided{OF_TASK(w2), 1, I}, N, I, O);
    put_all(sum, RowMajor{OF_TASK(dx), I}, N, I);
}

// dw[o,i]: columns o of dy and columns i of x, along n.
extern "C" __global__ void __launch_bounds__(THREADS) linear_backward_w_v2(OUTPUT(real, dw), ARRAY(real, x), ARRAY(real, dy),
                                                                           ARRAY(real, x2), ARRAY(real, dy2), EXTENTS)
{
    __shared__ Slice a, b;
    Results sum = {};
    add_product<false, false>(sum, a, b, Strided{OF_TASK(dy), 1, O}, Strided{OF_TASK(x), 1, I}, O, I, N);
    if (pairs == 2) add_product<false, false>(sum, a, b, Strided{OF_TASK(dy2), 1, O}, Strided{OF_TASK(x2), 1, I}, O, I, N);
    put_all(sum, RowMajor{OF_TASK(dw), I}, O, I);
}
