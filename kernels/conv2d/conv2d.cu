// 2-D convolution for T tasks with their own filters: see reference.py. x (N, C, H, W), y (N, O, Ho, Wo), w (O, C, kH, kW) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads all it needs from memory
//   v2  (conv2d_v2.cu) implicit GEMM: tiles of 64 x 64 results of a matrix product (common.cu) whose one operand, the patches, is
//       never stored: slices of it are gathered into shared memory. A number from memory serves 64 products. In backward_x with a stride
//       most of what is gathered is 0: the places between positions.
//   v3  (conv2d_v3.cu) 8 x 8 results for each thread, slices fetched ahead, both products in one loop without divisions or branches,
//       few tiles shared out along k (gemm_v3.cu). backward_x goes by the remainders of a pixel's row and column: pixels with the
//       same ones are seen through the same taps and no others, so that no zeros are multiplied. Where filters have so few taps that a
//       tile of columns would be mostly empty, as in a net's first layer, backward_w goes by positions (conv2d_backward_w_few). Not yet
//       timed on a GPU.
#define GEOMETRY \
    int N, int C, int H, int W, int O, int Ho, int Wo, int kH, int kW, int sH, int sW, int top, int left, int pairs
#define OPERANDS(a, b) ARRAY(real, a), ARRAY(real, b), ARRAY(real, a##2), ARRAY(real, b##2)
#define FILL_SHAPE Shape of = {N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left}

struct Shape { int N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left; };

__device__ __forceinline__ bool inside(int h, int w, Shape of) { return h >= 0 && h < of.H && w >= 0 && w < of.W; }

// What a position of y sees of x through a tap; 0 beyond the border.
__device__ __forceinline__ real seen(const real *x, Place position, Place tap, Shape of)
{
    int h = of.sH * position.mid + tap.mid - of.top, v = of.sW * position.lo + tap.lo - of.left;
    return inside(h, v, of) ? x[((position.hi * of.C + tap.hi) * of.H + h) * of.W + v] : 0;
}

// ---- v1 ---------------------------------------------------------------------------------------------------------------------

// y[n,o,a,b] = sum_{c,p,q} w[o,c,p,q] x[n,c,sH a + p - top,sW b + q - left]
struct SumOfY {
    const real *x, *w;
    Shape of;
    __device__ real at(int i) const
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
};

// The row (or column) of positions that sees pixel h through tap p: -1 if none does.
__device__ __forceinline__ int position_of(int h, int p, int start, int s, int count)
{
    int from = h + start - p;
    return from < 0 || from % s || from / s >= count ? -1 : from / s;
}

// dx[n,c,h,v] = sum of w[o,c,p,q] dy[n,o,a,b] over the positions (a, b) that see the pixel through a tap (p, q)
struct SumOfDx {
    const real *dy, *w;
    Shape of;
    __device__ real at(int i) const
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
};

// dw[o,c,p,q] = sum_{n,a,b} dy[n,o,a,b] x[n,c,sH a + p - top,sW b + q - left]
struct SumOfDw {
    const real *x, *dy;
    Shape of;
    __device__ real at(int i) const
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
};

#define PLAIN(out, a, b, Sum, count) \
    FILL_SHAPE; \
    plain_product(OF_TASK(out), count, pairs, Sum{OF_TASK(a), OF_TASK(b), of}, Sum{OF_TASK(a##2), OF_TASK(b##2), of})

extern "C" __global__ void conv2d_forward_v1(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY) { PLAIN(y, x, w, SumOfY, N * O * Ho * Wo); }
extern "C" __global__ void conv2d_backward_x_v1(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY) { PLAIN(dx, dy, w, SumOfDx, N * C * H * W); }
extern "C" __global__ void conv2d_backward_w_v1(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY) { PLAIN(dw, x, dy, SumOfDw, O * C * kH * kW); }
