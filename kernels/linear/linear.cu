// Matrix product for T tasks with their own weights: see reference.py. x (N, I), y (N, O), w (O, I) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads its row and its column from memory
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
