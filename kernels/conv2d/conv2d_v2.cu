// Version 2 of the convolution, implicit GEMM in tiles of 64 x 64 results: the operands
// of product_v2 (common.cu). See conv2d.cu.

// The tap (c, p, q), or (o, p, q), of a number.
__device__ __forceinline__ Index3 tap_of(int k, Shape of) { return index3_of(k, of.kH, of.kW); }

// (o, tap of c): w in its own order.
struct FiltersByOutput {
    const real *w;
    int taps;
    __device__ __forceinline__ real at(int o, int k) const { return w[o * taps + k]; }
};

// (c, tap of o): w.
struct FiltersByInput {
    const real *w;
    Shape of;
    __device__ __forceinline__ real at(int c, int k) const
    {
        int window = of.kH * of.kW;
        return w[(k / window * of.C + c) * window + k % window];
    }
};

// (position, tap of c): x.
struct PatchOfPosition {
    const real *x;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const
    {
        return pixel_at(x, index3_of(i, of.Ho, of.Wo), tap_of(k, of), of);
    }
};

// (tap of c, position): x.
struct PatchOfTap {
    const real *x;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const
    {
        return pixel_at(x, index3_of(k, of.Ho, of.Wo), tap_of(i, of), of);
    }
};

// (pixel, tap of o): dy of the position whose window has the pixel at the tap; 0 if
// there is none.
struct PositionsOfPixel {
    const real *dy;
    Shape of;
    __device__ __forceinline__ real at(int i, int k) const
    {
        Index3 pixel = index3_of(i, of.H, of.W), tap = tap_of(k, of);
        int a = position_of(pixel.mid, tap.mid, of.top, of.sH, of.Ho),
            b = position_of(pixel.lo, tap.lo, of.left, of.sW, of.Wo);
        return a >= 0 && b >= 0 ? dy[((pixel.hi * of.O + tap.hi) * of.Ho + a) * of.Wo + b] : 0;
    }
};

// (o, position): dy.
struct OutputsOfPosition {
    const real *dy;
    Shape of;
    __device__ __forceinline__ real at(int o, int k) const
    {
        int size = of.Ho * of.Wo;
        return dy[(k / size * of.O + o) * size + k % size];
    }
};

// Results (channel, image and pixel) into (N, channels, size).
struct Images {
    real *to;
    int channels, size;
    __device__ __forceinline__ void put(int c, int i, real value) const
    {
        to[(i / size * channels + c) * size + i % size] = value;
    }
};

// Results (o, tap of c) into w in its own order.
struct Filters {
    real *w;
    int taps;
    __device__ __forceinline__ void put(int o, int k, real value) const { w[o * taps + k] = value; }
};

// The operands A and B are each made of an array and one more argument.
#define PRODUCT_V2(result, A, a, a_with, B, b, b_with, rows, columns, depth, b_k_first) \
    __shared__ Slice a_slice, b_slice; \
    product_v2<true, b_k_first>(result, a_slice, b_slice, A{OF_TASK(a), a_with}, \
                                B{OF_TASK(b), b_with}, A{OF_TASK(a##2), a_with}, \
                                B{OF_TASK(b##2), b_with}, pairs, rows, columns, depth)

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_forward_v2(OUTPUT(real, y), OPERANDS(x, w), GEOMETRY)
{
    FILL_SHAPE;
    int taps = C * kH * kW;
    PRODUCT_V2((Images{OF_TASK(y), O, Ho * Wo}), FiltersByOutput, w, taps, PatchOfPosition, x, of,
               O, N * Ho * Wo, taps, false);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_backward_x_v2(OUTPUT(real, dx), OPERANDS(dy, w), GEOMETRY)
{
    FILL_SHAPE;
    PRODUCT_V2((Images{OF_TASK(dx), C, H * W}), FiltersByInput, w, of, PositionsOfPixel, dy, of, C,
               N * H * W, O * kH * kW, false);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_backward_w_v2(OUTPUT(real, dw), OPERANDS(x, dy), GEOMETRY)
{
    FILL_SHAPE;
    int taps = C * kH * kW;
    PRODUCT_V2((Filters{OF_TASK(dw), taps}), OutputsOfPosition, dy, of, PatchOfTap, x, of, O, taps,
               N * Ho * Wo, true);
}
