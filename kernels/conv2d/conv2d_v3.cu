// Version 3 of the convolution: the Plans of gemm_v3.cu, and backward_w of filters with
// few taps. See conv2d.cu.

struct Plan {
    Shape of;
    int rows, columns, depth, mid, lo, per_row, seen_rows, seen_columns, to_row;
    bool contiguous = true;
};

// Rows o, columns (n, a, b), k = (c, p, q).
struct ForwardPlan : Plan {
    __device__ __forceinline__ ForwardPlan(Shape of)
        : Plan{of,    of.O,         of.N * of.Ho * of.Wo, of.C * of.kH * of.kW,
               of.kH, of.kW,        of.C * of.kH * of.kW, of.H,
               of.W,  of.Ho * of.Wo}
    {}
    __device__ __forceinline__ Step step(Index3 k) const
    {
        return {(k.hi * of.kH + k.mid) * of.kW + k.lo, (k.hi * of.H + k.mid) * of.W + k.lo, k.mid,
                k.lo};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Index3 at = index3_of(i, of.Ho, of.Wo);
        int h = of.sH * at.mid - of.top, v = of.sW * at.lo - of.left;
        return {(at.hi * of.C * of.H + h) * of.W + v, h, v};
    }
    __device__ __forceinline__ int place(int i) const
    {
        return i / to_row * of.O * to_row + i % to_row;
    }
};

// Rows o, columns (c, p, q), k = (n, a, b).
struct BackwardWPlan : Plan {
    __device__ __forceinline__ BackwardWPlan(Shape of)
        : Plan{of,   of.O, of.C * of.kH * of.kW, of.N * of.Ho * of.Wo, of.Ho, of.Wo, of.Ho * of.Wo,
               of.H, of.W, of.C * of.kH * of.kW}
    {}
    __device__ __forceinline__ Step step(Index3 k) const
    {
        int h = of.sH * k.mid, v = of.sW * k.lo;
        return {(k.hi * of.O * of.Ho + k.mid) * of.Wo + k.lo, (k.hi * of.C * of.H + h) * of.W + v,
                h, v};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Index3 at = index3_of(i, of.kH, of.kW);
        int h = at.mid - of.top, v = at.lo - of.left;
        return {(at.hi * of.H + h) * of.W + v, h, v};
    }
    __device__ __forceinline__ int place(int i) const { return i; }
};

// The rows (or columns) h of an image with (h + start) % s = r: the first, their
// number, and how many of k taps they meet.
struct Remainder {
    int r, first, count, taps;
    __device__ __forceinline__ Remainder(int r, int H, int start, int s, int k)
        : r(r), first((r + s - start % s) % s), count(first < H ? (H - 1 - first) / s + 1 : 0),
          taps(r < k ? (k - 1 - r) / s + 1 : 0)
    {}
};

// For the pixels with two such remainders: rows c, columns (n, pixel), k = (o, p, q)
// for the taps (down.r + sH p, across.r + sW q). The position whose window has a pixel
// at the first tap is (h + top - r) / sH; for each further tap it is one less.
struct BackwardXPlan : Plan {
    Remainder down, across;
    __device__ __forceinline__ BackwardXPlan(Shape of, Remainder down, Remainder across)
        : Plan{of,
               of.C,
               of.N * down.count * across.count,
               of.O * down.taps * across.taps,
               down.taps,
               across.taps,
               of.kH * of.kW,
               of.Ho,
               of.Wo,
               of.H * of.W,
               of.sH == 1 && of.sW == 1},
          down(down), across(across)
    {}
    __device__ __forceinline__ Step step(Index3 k) const
    {
        int tap = (down.r + of.sH * k.mid) * of.kW + across.r + of.sW * k.lo;
        return {k.hi * of.C * per_row + tap, (k.hi * of.Ho - k.mid) * of.Wo - k.lo, -k.mid, -k.lo};
    }
    __device__ __forceinline__ Index3 pixel(int i) const  // image, row, column
    {
        Index3 at = index3_of(i, down.count, across.count);
        return {at.hi, down.first + of.sH * at.mid, across.first + of.sW * at.lo};
    }
    __device__ __forceinline__ Column column(int i) const
    {
        Index3 at = pixel(i);
        int a = (at.mid + of.top - down.r) / of.sH, b = (at.lo + of.left - across.r) / of.sW;
        return {(at.hi * of.O * of.Ho + a) * of.Wo + b, a, b};
    }
    __device__ __forceinline__ int place(int i) const
    {
        Index3 at = pixel(i);
        return (at.hi * of.C * of.H + at.mid) * of.W + at.lo;
    }
};

#define PRODUCT_V3(out, a, b, plan, tile, b_k_first, count) \
    product_v3<b_k_first>(OF_TASK(out), shared, plan, tile, Pair{OF_TASK(a), OF_TASK(b)}, \
                          Pair{OF_TASK(a##2), OF_TASK(b##2)}, pairs, parts, count)

extern "C" __global__ void __launch_bounds__(LANES)
    conv2d_forward_v3(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    PRODUCT_V3(y, w, x, ForwardPlan(of), blockIdx.x, false, N * O * Ho * Wo);
}

extern "C" __global__ void __launch_bounds__(LANES)
    conv2d_backward_x_v3(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    // The tiles of one pair of remainders, then those of the next.
    for (int tile = blockIdx.x, r = 0; r < sH; r++)
        for (int u = 0; u < sW; u++) {
            BackwardXPlan plan(of, Remainder(r, H, top, sH, kH), Remainder(u, W, left, sW, kW));
            int tiles = (plan.columns + TILE - 1) / TILE;
            if (tile >= 0 && tile < tiles) PRODUCT_V3(dx, w, dy, plan, tile, false, N * C * H * W);
            tile -= tiles;
        }
}

extern "C" __global__ void __launch_bounds__(LANES)
    conv2d_backward_w_v3(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ Shared shared;
    PRODUCT_V3(dw, dy, x, BackwardWPlan(of), blockIdx.x, true, O * C * kH * kW);
}

// ---- backward_w for at most FEW taps ------------------------------------------------
//
// One block for FILTERS filters and a part of the positions, one thread for some of
// these.

enum { FEW = 16, FILTERS = 4 };

// sum[f][tap] += dy[o + f] times x at the tap, over this thread's positions among begin
// .. end-1: FILTERS + taps loads for FILTERS times taps products.
__device__ __forceinline__ void add_positions(real (&sum)[FILTERS][FEW], const real *x,
                                              const real *dy, Shape of, int o, int begin, int end)
{
    Index3 at = index3_of(begin + threadIdx.x, of.Ho, of.Wo),
           by = index3_of(blockDim.x, of.Ho, of.Wo);
    for (int e = begin + threadIdx.x; e < end; e += blockDim.x, at.advance(by, of.Ho, of.Wo)) {
        real dys[FILTERS];
        Index3 tap = {0, 0, 0};
#pragma unroll
        for (int f = 0; f < FILTERS; f++)
            dys[f] = o + f < of.O ? dy[((at.hi * of.O + o + f) * of.Ho + at.mid) * of.Wo + at.lo]
                                  : real(0);
#pragma unroll
        for (int k = 0; k < FEW; k++, tap.advance({0, 0, 1}, of.kH, of.kW)) {
            if (k >= of.C * of.kH * of.kW) break;
            real pixel = pixel_at(x, at, tap, of);
#pragma unroll
            for (int f = 0; f < FILTERS; f++) sum[f][k] += dys[f] * pixel;
        }
    }
}

extern "C" __global__ void __launch_bounds__(TEAM)
    conv2d_backward_w_few(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY, int parts)
{
    FILL_SHAPE;
    __shared__ PartialSums part;
    int o = blockIdx.x * FILTERS, taps = C * kH * kW, depth = N * Ho * Wo,
        chunk = (depth + parts - 1) / parts, begin = blockIdx.y * chunk;
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
