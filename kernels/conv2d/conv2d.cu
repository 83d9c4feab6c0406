// 2-D convolution for T tasks with their own filters: see reference.py. x (N, C, H, W), y (N, O, Ho, Wo), w (O, C, kH, kW) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads all it needs from memory
#define GEOMETRY \
    int N, int C, int H, int W, int O, int Ho, int Wo, int kH, int kW, int sH, int sW, int top, int left, int pairs
#define FILL_SHAPE Shape of = {N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left}

struct Shape { int N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left; };

__device__ __forceinline__ bool inside(int h, int w, Shape of) { return h >= 0 && h < of.H && w >= 0 && w < of.W; }

// y[n,o,a,b] = sum_{c,p,q} w[o,c,p,q] x[n,c,sH a + p - top,sW b + q - left]
__device__ real y_at(const real *x, const real *w, int i, Shape of)
{
    int b = i % of.Wo, a = i / of.Wo % of.Ho, o = i / (of.Wo * of.Ho) % of.O, n = i / (of.Wo * of.Ho * of.O);
    real sum = 0;
    for (int c = 0; c < of.C; c++)
        for (int p = 0; p < of.kH; p++)
            for (int q = 0; q < of.kW; q++) {
                int h = of.sH * a + p - of.top, v = of.sW * b + q - of.left;
                if (inside(h, v, of)) sum += w[((o * of.C + c) * of.kH + p) * of.kW + q] * x[((n * of.C + c) * of.H + h) * of.W + v];
            }
    return sum;
}

extern "C" __global__ void conv2d_forward_v1(OUTPUT(real, y), ARRAY(real, x), ARRAY(real, w), ARRAY(real, x2), ARRAY(real, w2), GEOMETRY)
{
    FILL_SHAPE;
    int i = my_element();
    if (i >= N * O * Ho * Wo) return;
    real sum = y_at(OF_TASK(x), OF_TASK(w), i, of);
    if (pairs == 2) sum += y_at(OF_TASK(x2), OF_TASK(w2), i, of);
    OF_TASK(y)[i] = sum;
}

// The row (or column) of positions that sees pixel h through tap p: -1 if none does.
__device__ __forceinline__ int position_of(int h, int p, int start, int s, int count)
{
    int from = h + start - p;
    return from < 0 || from % s || from / s >= count ? -1 : from / s;
}

// dx[n,c,h,v] = sum of w[o,c,p,q] dy[n,o,a,b] over the positions (a, b) that see the pixel through a tap (p, q)
__device__ real dx_at(const real *dy, const real *w, int i, Shape of)
{
    int v = i % of.W, h = i / of.W % of.H, c = i / (of.W * of.H) % of.C, n = i / (of.W * of.H * of.C);
    real sum = 0;
    for (int o = 0; o < of.O; o++)
        for (int p = 0; p < of.kH; p++)
            for (int q = 0; q < of.kW; q++) {
                int a = position_of(h, p, of.top, of.sH, of.Ho), b = position_of(v, q, of.left, of.sW, of.Wo);
                if (a >= 0 && b >= 0)
                    sum += w[((o * of.C + c) * of.kH + p) * of.kW + q] * dy[((n * of.O + o) * of.Ho + a) * of.Wo + b];
            }
    return sum;
}

extern "C" __global__ void conv2d_backward_x_v1(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, w), ARRAY(real, dy2), ARRAY(real, w2),
                                                GEOMETRY)
{
    FILL_SHAPE;
    int i = my_element();
    if (i >= N * C * H * W) return;
    real sum = dx_at(OF_TASK(dy), OF_TASK(w), i, of);
    if (pairs == 2) sum += dx_at(OF_TASK(dy2), OF_TASK(w2), i, of);
    OF_TASK(dx)[i] = sum;
}

// dw[o,c,p,q] = sum_{n,a,b} dy[n,o,a,b] x[n,c,sH a + p - top,sW b + q - left]
__device__ real dw_at(const real *x, const real *dy, int i, Shape of)
{
    int q = i % of.kW, p = i / of.kW % of.kH, c = i / (of.kW * of.kH) % of.C, o = i / (of.kW * of.kH * of.C);
    real sum = 0;
    for (int n = 0; n < of.N; n++)
        for (int a = 0; a < of.Ho; a++)
            for (int b = 0; b < of.Wo; b++) {
                int h = of.sH * a + p - of.top, v = of.sW * b + q - of.left;
                if (inside(h, v, of)) sum += dy[((n * of.O + o) * of.Ho + a) * of.Wo + b] * x[((n * of.C + c) * of.H + h) * of.W + v];
            }
    return sum;
}

extern "C" __global__ void conv2d_backward_w_v1(OUTPUT(real, dw), ARRAY(real, x), ARRAY(real, dy), ARRAY(real, x2), ARRAY(real, dy2),
                                                GEOMETRY)
{
    FILL_SHAPE;
    int i = my_element();
    if (i >= O * C * kH * kW) return;
    real sum = dw_at(OF_TASK(x), OF_TASK(dy), i, of);
    if (pairs == 2) sum += dw_at(OF_TASK(x2), OF_TASK(dy2), i, of);
    OF_TASK(dw)[i] = sum;
}
