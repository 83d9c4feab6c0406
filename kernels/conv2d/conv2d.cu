// 2-D convolution for T tasks with their own filters: see reference.py. x (N, C, H, W), y (N, O, Ho, Wo), w (O, C, kH, kW) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads all it needs from memory
//   v2  implicit GEMM: tiles of 64 x 64 results of a matrix product (common.cu) whose one operand, the patches, is never stored: slices
//       of it are gathered into shared memory. A number from memory serves 64 products. In backward_x with a stride most of what is
//       gathered is 0: the places between positions.
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

// ---- v2 ---------------------------------------------------------------------------------------------------------------------

// A tap (c, p, q), or (o, p, q), from its number in the order of the filters.
struct Tap { int channel, p, q; };
__device__ __forceinline__ Tap tap_of(int k, Shape of) { return {k / (of.kH * of.kW), k / of.kW % of.kH, k % of.kW}; }

// An image with a row and a column from a number below N rows columns.
struct Spot { int n, row, column; };
__device__ __forceinline__ Spot spot_of(int i, int rows, int columns) { return {i / (rows * columns), i / columns % rows, i % columns}; }

// What position `spot` of y sees of x through a tap; 0 beyond the border.
__device__ __forceinline__ real seen(const real *x, Spot spot, Tap tap, Shape of)
{
    int h = of.sH * spot.row + tap.p - of.top, v = of.sW * spot.column + tap.q - of.left;
    return inside(h, v, of) ? x[((spot.n * of.C + tap.channel) * of.H + h) * of.W + v] : 0;
}

struct FiltersByOutput {                                // (o, tap of c): w as it lies
    const real *w;
    int taps;
    __device__ __forceinline__ real at(int o, int k) const { return w[o * taps + k]; }
};

struct FiltersByInput {                                 // (c, tap of o)
    const real *w;
    Shape of;
    __device__ __forceinline__ real at(int c, int k) const
    {
        int window = of.kH * of.kW;
        return w[(k / window * of.C + c) * window + k % window];
    }
};

struct PatchOfPosition {                                // (position, tap of c)
    const real *x;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const { return seen(x, spot_of(i, of.Ho, of.Wo), tap_of(k, of), of); }
};

struct PatchOfTap {                                     // (tap of c, position)
    const real *x;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const { return seen(x, spot_of(k, of.Ho, of.Wo), tap_of(i, of), of); }
};

struct PositionsOfPixel {                               // (pixel, tap of o): dy where the pixel is seen through the tap, else 0
    const real *dy;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const
    {
        Spot pixel = spot_of(i, of.H, of.W);
        Tap tap = tap_of(k, of);
        int a = position_of(pixel.row, tap.p, of.top, of.sH, of.Ho), b = position_of(pixel.column, tap.q, of.left, of.sW, of.Wo);
        return a >= 0 && b >= 0 ? dy[((pixel.n * of.O + tap.channel) * of.Ho + a) * of.Wo + b] : 0;
    }
};

struct OutputsOfPosition {                              // (o, position): dy
    const real *dy;
    Shape of;
    __device__ __forceinline__ real at(int o, int k) const
    {
        int size = of.Ho * of.Wo;
        return dy[(k / size * of.O + o) * size + k % size];
    }
};

struct Images {                                         // results (channel, image and place) into (N, channels, size)
    real *to;
    int channels, size;
    __device__ __forceinline__ void put(int c, int i, real value) const { to[(i / size * channels + c) * size + i % size] = value; }
};

struct Filters {                                        // results (o, tap of c) into w as it lies
    real *w;
    int taps;
    __device__ __forceinline__ void put(int o, int k, real value) const { w[o * taps + k] = value; }
};

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_v2(OUTPUT(real, y), ARRAY(real, x), ARRAY(real, w), ARRAY(real, x2),
                                                                        ARRAY(real, w2), GEOMETRY)
{
    FILL_SHAPE;
    __shared__ Slice a, b;
    Results sum = {};
    int taps = C * kH * kW, positions = N * Ho * Wo;
    add_product<true, false>(sum, a, b, FiltersByOutput{OF_TASK(w), taps}, PatchOfPosition{OF_TASK(x), of}, O, positions, taps);
    if (pairs == 2)
        add_product<true, false>(sum, a, b, FiltersByOutput{OF_TASK(w2), taps}, PatchOfPosition{OF_TASK(x2), of}, O, positions, taps);
    put_all(sum, Images{OF_TASK(y), O, Ho * Wo}, O, positions);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_x_v2(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, w),
                                                                           ARRAY(real, dy2), ARRAY(real, w2), GEOMETRY)
{
    FILL_SHAPE;
    __shared__ Slice a, b;
    Results sum = {};
    int taps = O * kH * kW, pixels = N * H * W;
    add_product<true, false>(sum, a, b, FiltersByInput{OF_TASK(w), of}, PositionsOfPixel{OF_TASK(dy), of}, C, pixels, taps);
    if (pairs == 2)
        add_product<true, false>(sum, a, b, FiltersByInput{OF_TASK(w2), of}, PositionsOfPixel{OF_TASK(dy2), of}, C, pixels, taps);
    put_all(sum, Images{OF_TASK(dx), C, H * W}, C, pixels);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_w_v2(OUTPUT(real, dw), ARRAY(real, x), ARRAY(real, dy),
                                                                           ARRAY(real, x2), ARRAY(real, dy2), GEOMETRY)
{
    FILL_SHAPE;
    __shared__ Slice a, b;
    Results sum = {};
    int taps = C * kH * kW, positions = N * Ho * Wo;
    add_product<true, true>(sum, a, b, OutputsOfPosition{OF_TASK(dy), of}, PatchOfTap{OF_TASK(x), of}, O, taps, positions);
    if (pairs == 2) add_product<true, true>(sum, a, b, OutputsOfPosition{OF_TASK(dy2), of}, PatchOfTap{OF_TASK(x2), of}, O, taps, positions);
    put_all(sum, Filters{OF_TASK(dw), taps}, O, taps);
}
