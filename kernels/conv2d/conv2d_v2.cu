// Version 2 of the convolution, implicit GEMM in tiles of 64 x 64 results: the operands of common.cu's tiled_product. See conv2d.cu.

// The tap (c, p, q), or (o, p, q), of a number.
__device__ __forceinline__ Place tap_of(int k, Shape of) { return place_of(k, of.kH, of.kW); }

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
