// 2-D convolution for T tasks with their own filters: see reference.py. x (N, C, H, W), y (N, O, Ho, Wo), w (O, C, kH, kW) of each task.
//
// Each kernel adds up one or two products: the second is there in the R-passes (pairs = 2), and both go into the same sum.
//
//   v1  a thread for each result, which reads all it needs from memory
//   v2  implicit GEMM: tiles of 64 x 64 results of a matrix product (common.cu) whose one operand, the patches, is never stored: slices
//       of it are gathered into shared memory. A number from memory serves 64 products. In backward_x with a stride most of what is
//       gathered is 0: the places between positions.
//   v3  8 x 8 results for each thread, slices fetched ahead, both products in one loop without divisions or branches, few tiles shared out
//       along k (deep_product.cu). backward_x goes by the remainders of a pixel's row and column: pixels with the same ones are seen
//       through the same taps and no others, so that no zeros are multiplied. Where filters have so few taps that a tile of columns would
//       be mostly empty, as in a net's first layer, backward_w goes by positions (conv2d_backward_w_few). Not yet timed on a GPU.
#define GEOMETRY \
    int N, int C, int H, int W, int O, int Ho, int Wo, int kH, int kW, int sH, int sW, int top, int left, int pairs
#define OPERANDS(a, b) ARRAY(real, a), ARRAY(real, b), ARRAY(real, a##2), ARRAY(real, b##2)
#define FILL_SHAPE Shape of = {N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left}

struct Shape { int N, C, H, W, O, Ho, Wo, kH, kW, sH, sW, top, left; };

__device__ __forceinline__ bool inside(int h, int w, Shape of) { return h >= 0 && h < of.H && w >= 0 && w < of.W; }

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

// ---- v2 ---------------------------------------------------------------------------------------------------------------------

// A tap (c, p, q), or (o, p, q), and a position or pixel (n, row, column), from their numbers.
__device__ __forceinline__ Place tap_of(int k, Shape of) { return place_of(k, of.kH, of.kW); }

// What a position of y sees of x through a tap; 0 beyond the border.
__device__ __forceinline__ real seen(const real *x, Place position, Place tap, Shape of)
{
    int h = of.sH * position.mid + tap.mid - of.top, v = of.sW * position.lo + tap.lo - of.left;
    return inside(h, v, of) ? x[((position.hi * of.C + tap.hi) * of.H + h) * of.W + v] : 0;
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
    __device__ __forceinline__ real at(int i, int k) const { return seen(x, place_of(i, of.Ho, of.Wo), tap_of(k, of), of); }
};

struct PatchOfTap {                                     // (tap of c, position)
    const real *x;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const { return seen(x, place_of(k, of.Ho, of.Wo), tap_of(i, of), of); }
};

struct PositionsOfPixel {                               // (pixel, tap of o): dy where the pixel is seen through the tap, else 0
    const real *dy;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const
    {
        Place pixel = place_of(i, of.H, of.W), tap = tap_of(k, of);
        int a = position_of(pixel.mid, tap.mid, of.top, of.sH, of.Ho), b = position_of(pixel.lo, tap.lo, of.left, of.sW, of.Wo);
        return a >= 0 && b >= 0 ? dy[((pixel.hi * of.O + tap.hi) * of.Ho + a) * of.Wo + b] : 0;
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

// `a` and `b` are operands of two things each, made from an array and the last argument.
#define TILED(result, A, a, a_with, B, b, b_with, rows, columns, depth, b_k_first) \
    __shared__ Slice a_slice, b_slice; \
    tiled_product<true, b_k_first>(result, a_slice, b_slice, A{OF_TASK(a), a_with}, B{OF_TASK(b), b_with}, A{OF_TASK(a##2), a_with}, \
                                   B{OF_TASK(b##2), b_with}, pairs, rows, columns, depth)

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_v2(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY)
{
    FILL_SHAPE;
    int taps = C * kH * kW;
    TILED((Images{OF_TASK(y), O, Ho * Wo}), FiltersByOutput, w, taps, PatchOfPosition, x, of, O, N * Ho * Wo, taps, false);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_x_v2(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY)
{
    FILL_SHAPE;
    TILED((Images{OF_TASK(dx), C, H * W}), FiltersByInput, w, of, PositionsOfPixel, dy, of, C, N * H * W, O * kH * kW, false);
}

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_w_v2(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY)
{
    FILL_SHAPE;
    int taps = C * kH * kW;
    TILED((Filters{OF_TASK(dw), taps}), OutputsOfPosition, dy, of, PatchOfTap, x, of, O, taps, N * Ho * Wo, true);
}

// ---- v3: Plans of deep_product.cu ----------------------------------------------------------------------------------------------

struct Plan {
    Shape of;
    int rows, columns, depth, mid, lo, per_row, seen_rows, seen_columns, to_row;
    bool in_order = true;
};

struct ForwardPlan : Plan {                             // rows o, columns (n, a, b), k = (c, p, q)
    __device__ __forceinline__ ForwardPlan(Shape of)
        : Plan{of, of.O, of.N * of.Ho * of.Wo, of.C * of.kH * of.kW, of.kH, of.kW, of.C * of.kH * of.kW, of.H, of.W, of.Ho * of.Wo} {}
    __device__ __forceinline__ Step step(Place k) const
    {
        return {(k.hi * of.kH + k.mid) * of.kW + k.lo, (k.hi * of.H + k.mid) * of.W + k.lo, k.mid, k.lo};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Place at = place_of(i, of.Ho, of.Wo);
        int h = of.sH * at.mid - of.top, v = of.sW * at.lo - of.left;
        return {(at.hi * of.C * of.H + h) * of.W + v, h, v};
    }
    __device__ __forceinline__ int place(int i) const { return i / to_row * of.O * to_row + i % to_row; }
};

struct BackwardWPlan : Plan {                           // rows o, columns (c, p, q), k = (n, a, b)
    __device__ __forceinline__ BackwardWPlan(Shape of)
        : Plan{of, of.O, of.C * of.kH * of.kW, of.N * of.Ho * of.Wo, of.Ho, of.Wo, of.Ho * of.Wo, of.H, of.W, of.C * of.kH * of.kW} {}
    __device__ __forceinline__ Step step(Place k) const
    {
        int h = of.sH * k.mid, v = of.sW * k.lo;
        return {(k.hi * of.O * of.Ho + k.mid) * of.Wo + k.lo, (k.hi * of.C * of.H + h) * of.W + v, h, v};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Place at = place_of(i, of.kH, of.kW);
        int h = at.mid - of.top, v = at.lo - of.left;
        return {(at.hi * of.H + h) * of.W + v, h, v};
    }
    __device__ __forceinline__ int place(int i) const { return i; }
};

// The rows (or columns) h of an image with (h + start) % s = r: the first, how many, and through how many of k taps they are seen.
struct Remainder {
    int r, first, count, taps;
    __device__ __forceinline__ Remainder(int r, int H, int start, int s, int k)
        : r(r), first((r + s - start % s) % s), count(first < H ? (H - 1 - first) / s + 1 : 0), taps(r < k ? (k - 1 - r) / s + 1 : 0) {}
};

// Of pixels with such remainders: rows c, columns (n, pixel), k = (o, p, q) for the taps (down.r + sH p, across.r + sW q). The position
// that sees a pixel through the first tap is (h + top - r) / sH, and each further tap is seen from one position less.
struct BackwardXPlan : Plan {
    Remainder down, across;
    __device__ __forceinline__ BackwardXPlan(Shape of, Remainder down, Remainder across)
        : Plan{of, of.C, of.N * down.count * across.count, of.O * down.taps * across.taps, down.taps, across.taps, of.kH * of.kW, of.Ho,
               of.Wo, of.H * of.W, of.sH == 1 && of.sW == 1}, down(down), across(across) {}
    __device__ __forceinline__ Step step(Place k) const
    {
        int tap = (down.r + of.sH * k.mid) * of.kW + across.r + of.sW * k.lo;
        return {k.hi * of.C * per_row + tap, (k.hi * of.Ho - k.mid) * of.Wo - k.lo, -k.mid, -k.lo};
    }
    __device__ __forceinline__ Place pixel(int i) const        // image, row, column
    {
        Place at = place_of(i, down.count, across.count);
        return {at.hi, down.first + of.sH * at.mid, across.first + of.sW * at.lo};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Place at = pixel(i);
        int a = (at.mid + of.top - down.r) / of.sH, b = (at.lo + of.left - across.r) / of.sW;
        return {(at.hi * of.O * of.Ho + a) * of.Wo + b, a, b};
    }
    __device__ __forceinline__ int place(int i) const
    {
        Place at = pixel(i);
        return (at.hi * of.C * of.H + at.mid) * of.W + at.lo;
    }
};

#define DEEP(out, a, b, plan, tile, b_k_first, count) \
    deep_product<b_k_first>(OF_TASK(out), shared, plan, tile, Pair{OF_TASK(a), OF_TASK(b)}, Pair{OF_TASK(a##2), OF_TASK(b##2)}, pairs, \
                            parts, count)

extern "C" __global__ void __launch_bounds__(LANES) conv2d_forward_v3(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    DEEP(y, w, x, ForwardPlan(of), blockIdx.x, false, N * O * Ho * Wo);
}

extern "C" __global__ void __launch_bounds__(LANES) conv2d_backward_x_v3(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    for (int tile = blockIdx.x, r = 0; r < sH; r++)                  // the tiles of one pair of remainders, then those of the next
        for (int u = 0; u < sW; u++) {
            BackwardXPlan plan(of, Remainder(r, H, top, sH, kH), Remainder(u, W, left, sW, kW));
            int tiles = (plan.columns + TILE - 1) / TILE;
            if (tile >= 0 && tile < tiles) DEEP(dx, w, dy, plan, tile, false, N * C * H * W);
            tile -= tiles;
        }
}

extern "C" __global__ void __launch_bounds__(LANES) conv2d_backward_w_v3(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    DEEP(dw, dy, x, BackwardWPlan(of), blockIdx.x, true, O * C * kH * kW);
}

// ---- v3 of backward_w for at most FEW taps: a block for FILTERS filters and a part of the positions, a thread for some positions --------

enum { FEW = 16, FILTERS = 4 };

// sum[f][tap] += dy[o + f] x seen through the tap, over this thread's positions among begin .. end-1: FILTERS + taps loads for FILTERS
// times as many products as there are taps.
__device__ __forceinline__ void add_positions(real (&sum)[FILTERS][FEW], const real *x, const real *dy, Shape of, int o, int begin, int end)
{
    Place at = place_of(begin + threadIdx.x, of.Ho, of.Wo), by = place_of(blockDim.x, of.Ho, of.Wo);
    for (int e = begin + threadIdx.x; e < end; e += blockDim.x, at.advance(by, of.Ho, of.Wo)) {
        real dys[FILTERS];
        Place tap = {0, 0, 0};
#pragma unroll
        for (int f = 0; f < FILTERS; f++)
            dys[f] = o + f < of.O ? dy[((at.hi * of.O + o + f) * of.Ho + at.mid) * of.Wo + at.lo] : real(0);
#pragma unroll
        for (int k = 0; k < FEW; k++, tap.advance({0, 0, 1}, of.kH, of.kW)) {
            if (k >= of.C * of.kH * of.kW) break;
            real through = seen(x, at, tap, of);
#pragma unroll
            for (int f = 0; f < FILTERS; f++) sum[f][k] += dys[f] * through;
        }
    }
}

extern "C" __global__ void __launch_bounds__(TEAM) conv2d_backward_w_few(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Parts part;
    int o = blockIdx.x * FILTERS, taps = C * kH * kW, depth = N * Ho * Wo, chunk = (depth + parts - 1) / parts, begin = blockIdx.y * chunk;
    int end = begin + chunk < depth ? begin + chunk : depth;
    real sum[FILTERS][FEW] = {};
    add_positions(sum, OF_TASK(x), OF_TASK(dy), of, o, begin, end);
    if (pairs == 2) add_positions(sum, OF_TASK(x2), OF_TASK(dy2), of, o, begin, end);
    real *out = OF_TASK(dw) + (long long)blockIdx.y * O * taps;
#pragma unroll
    for (int k = 0; k < FEW; k++) {
        if (k >= taps) break;
        real of_filter[FILTERS];
#pragma unroll
        for (int f = 0; f < FILTERS; f++) of_filter[f] = sum[f][k];
        block_sums(of_filter, part);
#pragma unroll
        for (int f = 0; f < FILTERS; f++)
            if (threadIdx.x == f && o + f < O) out[(o + f) * taps + k] = of_filter[f];
    }
}
