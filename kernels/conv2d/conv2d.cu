// 2-D convolution for T tasks with their own filters: see reference.py. x (N, C, H, W),
// y (N, O, Ho, Wo), w (O, C, kH, kW) of each task.
//
// Each kernel computes one product or the sum of two: pairs = 2 in the R-passes.
//
//   v1  one thread for each result, which reads all its operands from memory
//   v2  (conv2d_v2.cu) implicit GEMM: tiles of 64 x 64 results of a matrix product
//       (common.cu). One operand, the patches, is never stored: slices of it are
//       gathered into shared memory. A number that is loaded once serves 64 products.
//       In backward_x with a stride most gathered numbers are 0: those between
//       positions.
//   v3  (conv2d_v3.cu) 8 x 8 results for each thread, slices are prefetched, both
//       products in one loop without divisions or branches, few tiles are divided along
//       k (gemm_v3.cu). backward_x groups pixels by the remainders of row and column
//       modulo the stride: the pixels of a group meet the same taps, so no zeros are
//       multiplied. Filters with so few taps that most of a tile of columns would be
//       empty, as in the first layer of a net, have their own backward_w
//       (conv2d_backward_w_few). Not timed on a GPU yet.
#define GEOMETRY \
    int N, int C, int H, int W, int O, int Ho, int Wo, int kH, int kW, int sH, int sW, int top, \
        int left, int pairs
#define OPERANDS(a, b) ARRAY(real, a), ARRAY(real, b), ARRAY(real, a##2), ARRAY(real, b##2)
#define FILL_SHAPE Shape of = {N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left}

struct Shape {
    int N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left;
};

__device__ __forceinline__ bool inside(int h, int w, Shape of)
{
    return h >= 0 && h < of.H && w >= 0 && w < of.W;
}

// The pixel of x at a tap of the window of a position; 0 beyond the border.
__device__ __forceinline__ real pixel_at(const real *x, Index3 position, Index3 tap, Shape of)
{
    int h = of.sH * position.mid + tap.mid - of.top, v = of.sW * position.lo + tap.lo - of.left;
    return inside(h, v, of) ? x[((position.hi * of.C + tap.hi) * of.H + h) * of.W + v] : 0;
}

// ---- v1 -----------------------------------------------------------------------------

// y[n,o,a,b] = sum_{c,p,q} w[o,c,p,q] x[n,c,sH a + p - top,sW b + q - left]
struct SumOfY {
    const real *x, *w;
    Shape of;
    __device__ real at(int i) const
    {
        int b = i % of.Wo, a = i / of.Wo % of.Ho, o = i / (of.Wo * of.Ho) % of.O,
            n = i / (of.Wo * of.Ho * of.O);
        real sum = 0;
        for (int c = 0; c < of.C; c++)
            for (int p = 0; p < of.kH; p++)
                for (int q = 0; q < of.kW; q++) {
                    int h = of.sH * a + p - of.top, v = of.sW * b + q - of.left;
                    if (inside(h, v, of))
                        sum += w[((o * of.C + c) * of.kH + p) * of.kW + q] *
                               x[((n * of.C + c) * of.H + h) * of.W + v];
                }
        return sum;
    }
};

// The row (or column) of positions whose window has pixel h at tap p; -1 if there is
// none.
__device__ __forceinline__ int position_of(int h, int p, int start, int s, int count)
{
    int from = h + start - p;
    return from < 0 || from % s || from / s >= count ? -1 : from / s;
}

// dx[n,c,h,v] = sum of w[o,c,p,q] dy[n,o,a,b] over the positions (a, b) whose window
// has the pixel at a tap (p, q)
struct SumOfDx {
    const real *dy, *w;
    Shape of;
    __device__ real at(int i) const
    {
        int v = i % of.W, h = i / of.W % of.H, c = i / (of.W * of.H) % of.C,
            n = i / (of.W * of.H * of.C);
        real sum = 0;
        for (int o = 0; o < of.O; o++)
            for (int p = 0; p < of.kH; p++)
                for (int q = 0; q < of.kW; q++) {
                    int a = position_of(h, p, of.top, of.sH, of.Ho),
                        b = position_of(v, q, of.left, of.sW, of.Wo);
                    if (a >= 0 && b >= 0)
                        sum += w[((o * of.C + c) * of.kH + p) * of.kW + q] *
                               dy[((n * of.O + o) * of.Ho + a) * of.Wo + b];
                }
        return sum;
    }
};

// dw[o,c,p,q] = sum_{n,a,b} dy[n,o,a,b] x[n,c,sH a + p - top,sW b + q - left]
struct SumOfDw {
    const real *x, *dy;
    Shape of;
    __device__ real at(int i) const
    {
        int q = i % of.kW, p = i / of.kW % of.kH, c = i / (of.kW * of.kH) % of.C,
            o = i / (of.kW * of.kH * of.C);
        real sum = 0;
        for (int n = 0; n < of.N; n++)
            for (int a = 0; a < of.Ho; a++)
                for (int b = 0; b < of.Wo; b++) {
                    int h = of.sH * a + p - of.top, v = of.sW * b + q - of.left;
                    if (inside(h, v, of))
                        sum += dy[((n * of.O + o) * of.Ho + a) * of.Wo + b] *
                               x[((n * of.C + c) * of.H + h) * of.W + v];
                }
        return sum;
    }
};

#define PRODUCT_V1(out, a, b, Sum, count) \
    FILL_SHAPE; \
    product_v1(OF_TASK(out), count, pairs, Sum{OF_TASK(a), OF_TASK(b), of}, \
               Sum{OF_TASK(a##2), OF_TASK(b##2), of})

extern "C" __global__ void conv2d_forward_v1(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY)
{
    PRODUCT_V1(y, x, w, SumOfY, N * O * Ho * Wo);
}
extern "C" __global__ void conv2d_backward_x_v1(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY)
{
    PRODUCT_V1(dx, dy, w, SumOfDx, N * C * H * W);
}
extern "C" __global__ void conv2d_backward_w_v1(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY)
{
    PRODUCT_V1(dw, x, dy, SumOfDw, O * C * kH * kW);
}
