// Batch-norm, a piecewise linear activation and max-pooling as one operation:
// reference.py has the formulas and describes the arguments.
//
// One block for each (task, channel). It copies the M = N H W numbers of the channel to
// shared memory where they fit (else it reads them from memory again), computes the
// sums, and writes the results once. Three layers would write the normalised input, the
// activations and their adjoints to memory and read them back; here they are computed
// again from x, and only what the next layer reads is written.
//
// A thread computes BATCH results before it stores the first of them, in memory or in a
// sum. Loads may not be moved before a store, which could be to the same address, so
// otherwise each load would wait for memory by itself.
//
//   v1  one result after the other
//   v2  BATCH at a time. Not timed on a GPU yet.
//
// Windows of 1 x 1 (nothing is pooled) and 2 x 2 have their own compiled code, without
// divisions by the extents of a window.
#define CHANNEL int N, int C, int H, int W, int Ho, int Wo, int kH, int kW, int held

#define FOR_WINDOWS(pass, ...) \
    if (kH == 1 && kW == 1) \
        pass(Windows<1>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__); \
    else if (kH == 2 && kW == 2) \
        pass(Windows<2>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__); \
    else \
        pass(Windows<0>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__)

typedef signed char Winner;  // the place p kW + q in its window: at most 128 places

// The extents. SIDE is that of a window where it is known at compile time, else 0.
template <int SIDE>
struct Windows {
    int N, C, H, W, Ho, Wo, height_, width_;
    enum { POOLED = SIDE != 1 };
    __device__ __forceinline__ int height() const { return SIDE ? SIDE : height_; }
    __device__ __forceinline__ int width() const { return SIDE ? SIDE : width_; }
    __device__ __forceinline__ int pixels() const { return N * H * W; }
    // The index of pixel (image, a, b) of this block's channel in an image, and in x.
    __device__ __forceinline__ int in_image(Index3 at) const { return at.mid * W + at.lo; }
    __device__ __forceinline__ int in_x(Index3 at) const
    {
        return (at.hi * C + blockIdx.x) * H * W + in_image(at);
    }
    // The index of window (image, a, b) of this block's channel in y, and the index of
    // its pixel number `place` in an image.
    __device__ __forceinline__ int in_y(Index3 at) const
    {
        return ((at.hi * C + blockIdx.x) * Ho + at.mid) * Wo + at.lo;
    }
    __device__ __forceinline__ int pixel(Index3 at, int place) const
    {
        return POOLED
                   ? (at.mid * height() + place / width()) * W + at.lo * width() + place % width()
                   : at.mid * W + at.lo;
    }
};

// The numbers of this block's channel: pixel l of image n is from[n step + l].
struct Channel {
    const real *from;
    int step;
    __device__ __forceinline__ real at(int n, int l) const { return from[n * step + l]; }
};

// keep(at, find(at)) for each index of a box of N x A x B, in the same order by the
// same threads in every launch. Past the end, the first index of the batch is computed
// again and not kept.
enum { BATCH = 4 };
template <class Find, class Keep>
__device__ __forceinline__ void each(int N, int A, int B, Find find, Keep keep)
{
    Index3 by = index3_of(blockDim.x, A, B);
    for (Index3 at = index3_of(threadIdx.x, A, B); at.hi < N;) {
        Index3 first = at, indices[BATCH];
        decltype(find(at)) found[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++, at.advance(by, A, B)) {
            indices[j] = at;
            found[j] = find(at.hi < N ? at : first);
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            if (indices[j].hi < N) keep(indices[j], found[j]);
    }
}

// What one index adds to COUNT sums.
template <int COUNT>
struct Terms {
    real of[COUNT];
};
template <int COUNT>
__device__ __forceinline__ void add(real (&sum)[COUNT], const Terms<COUNT> &terms)
{
#pragma unroll
    for (int k = 0; k < COUNT; k++) sum[k] += terms.of[k];
}

// The channel of `x`, copied to the shared memory `room` if `held`. A barrier must
// follow before it is read.
template <class Of>
__device__ __forceinline__ Channel load_channel(const real *x, real *room, bool held, Of of)
{
    int L = of.H * of.W, c = blockIdx.x;
    Channel in_memory = {x + c * L, of.C * L};
    if (!held) return in_memory;
    each(
        of.N, 1, L, [&](Index3 at) { return in_memory.at(at.hi, at.lo); },
        [&](Index3 at, real x) { room[at.hi * L + at.lo] = x; });
    return {room, L};
}

// u where u > 0, slope u elsewhere; NaN passes through, and 0 times infinity is 0.
__device__ __forceinline__ real leaky_relu(real u, real slope)
{
    return !(u <= 0) ? u : slope == 0 ? 0 : slope * u;
}

// f'(u) at the maximum, from the sign of y = f(u).
__device__ __forceinline__ real slope_at(real y, real slope) { return y <= 0 ? slope : 1; }

// ---- forward: xh = s (x - <x>), y = the maximum of leaky_relu(gamma xh + beta) ------

template <class Of>
__device__ void forward(Of of, real *y, Winner *place, real *mean, real *s, const real *x,
                        real gamma, real beta, real eps, real slope, real *room, bool held,
                        PartialSums &part)
{
    Channel xs = load_channel(x, room, held, of);
    __syncthreads();
    // Sums of x; of x - mean and its square.
    real sum[1] = {0}, centred[2] = {0, 0}, M = of.pixels();
    auto pixel = [&](Index3 at) { return xs.at(at.hi, at.lo); };
    each(of.N, 1, of.H * of.W, pixel, [&](Index3, real x) { sum[0] += x; });
    block_sums(sum, part);
    real mean_c = sum[0] / M;
    each(of.N, 1, of.H * of.W, pixel,
         [&](Index3, real x) { add(centred, Terms<2>{x - mean_c, (x - mean_c) * (x - mean_c)}); });
    block_sums(centred, part);
    real rest = centred[0] / M, s_c = 1 / sqrt(corrected(centred[1] / M, rest) + eps);
    mean_c += rest;
    if (threadIdx.x == 0) mean[blockIdx.x] = mean_c, s[blockIdx.x] = s_c;
    struct Best {
        real a;
        int winner;
    };
    auto largest = [&](Index3 at) {
        Best best = {0, 0};
        int pixels = Of::POOLED ? of.height() * of.width() : 1;
        for (int k = 0; k < pixels; k++) {  // of equals the first; NaN is the largest
            real a =
                leaky_relu(gamma * (s_c * (xs.at(at.hi, of.pixel(at, k)) - mean_c)) + beta, slope);
            if (k == 0 || a > best.a || (a != a && best.a == best.a)) best = {a, k};
        }
        return best;
    };
    each(of.N, of.Ho, of.Wo, largest, [&](Index3 at, Best best) {
        y[of.in_y(at)] = best.a;
        if (Of::POOLED) place[of.in_y(at)] = best.winner;
    });
}

extern "C" __global__ void norm_act_pool_forward(OUTPUT(real, y), OUTPUT(Winner, place),
                                                 OUTPUT(real, mean), OUTPUT(real, s),
                                                 ARRAY(real, x), ARRAY(real, gamma),
                                                 ARRAY(real, beta), CHANNEL, real eps, real slope)
{
    __shared__ PartialSums part;
    DYNAMIC_SHARED(real, room);
    FOR_WINDOWS(forward, OF_TASK(y), OF_TASK(place), OF_TASK(mean), OF_TASK(s), OF_TASK(x),
                OF_TASK(gamma)[blockIdx.x], OF_TASK(beta)[blockIdx.x], eps, slope, room, held,
                part);
}

// ---- backward -----------------------------------------------------------------------
//
// du = f'(u) dy at the maxima, 0 elsewhere; dxh = gamma du;
// dx = s (dxh - <dxh> - xh <dxh xh>).

// The window of pixel (row, column), and whether the pixel is its maximum. A pixel that
// is in no window gets the first window, so that loads from y need not wait for the
// comparison.
template <class Of>
struct WindowOf {
    bool is_maximum;
    int in_y;
    __device__ __forceinline__ WindowOf(Of of, const Winner *place, Index3 pixel)
    {
        int a = Of::POOLED ? pixel.mid / of.height() : pixel.mid,
            b = Of::POOLED ? pixel.lo / of.width() : pixel.lo;
        bool outside = Of::POOLED && (a >= of.Ho || b >= of.Wo);
        in_y = of.in_y(outside ? Index3{pixel.hi, 0, 0} : Index3{pixel.hi, a, b});
        is_maximum =
            !Of::POOLED || (!outside & (place[in_y] == (pixel.mid - a * of.height()) * of.width() +
                                                           pixel.lo - b * of.width()));
    }
    __device__ __forceinline__ real of(real du) const { return is_maximum ? du : 0; }
};

template <class Of>
__device__ void backward(Of of, real *dx, real *dgamma, real *dbeta, const real *dy, const real *y,
                         const Winner *place, const real *x, real mean, real s, real gamma,
                         real slope, real *room, bool held, PartialSums &part)
{
    Channel xs = load_channel(x, room, held, of);
    __syncthreads();
    real sum[2] = {0, 0}, M = of.pixels();  // of du, du xh
    auto terms = [&](Index3 at) {
        int i = of.in_y(at);
        real du = slope_at(y[i], slope) * dy[i];
        return Terms<2>{du,
                        du * (s * (xs.at(at.hi, of.pixel(at, Of::POOLED ? place[i] : 0)) - mean))};
    };
    each(of.N, of.Ho, of.Wo, terms, [&](Index3, Terms<2> t) { add(sum, t); });
    block_sums(sum, part);
    if (threadIdx.x == 0) dbeta[blockIdx.x] = sum[0], dgamma[blockIdx.x] = sum[1];
    real dxh_mean = gamma * sum[0] / M, incline = gamma * sum[1] / M;
    auto dx_of = [&](Index3 at) {
        WindowOf<Of> window(of, place, at);
        real dxh = gamma * window.of(slope_at(y[window.in_y], slope) * dy[window.in_y]);
        return s * (dxh - dxh_mean - s * (xs.at(at.hi, of.in_image(at)) - mean) * incline);
    };
    each(of.N, of.H, of.W, dx_of, [&](Index3 at, real a) { dx[of.in_x(at)] = a; });
}

extern "C" __global__ void norm_act_pool_backward(OUTPUT(real, dx), OUTPUT(real, dgamma),
                                                  OUTPUT(real, dbeta), ARRAY(real, dy),
                                                  ARRAY(real, y), ARRAY(Winner, place),
                                                  ARRAY(real, x), ARRAY(real, mean), ARRAY(real, s),
                                                  ARRAY(real, gamma), CHANNEL, real slope)
{
    __shared__ PartialSums part;
    DYNAMIC_SHARED(real, room);
    int c = blockIdx.x;
    FOR_WINDOWS(backward, OF_TASK(dx), OF_TASK(dgamma), OF_TASK(dbeta), OF_TASK(dy), OF_TASK(y),
                OF_TASK(place), OF_TASK(x), OF_TASK(mean)[c], OF_TASK(s)[c], OF_TASK(gamma)[c],
                slope, room, held, part);
}

// ---- r_forward ----------------------------------------------------------------------
//
// rxh = s (rx - <rx> - xh <xh rx>);
// ry = f'(u) (rgamma xh + gamma rxh + rbeta) at the maxima.

// The statistics that a channel is normalised by, and their tangents.
struct Norm {
    real mean, s, rmean, incline;  // <x>, 1 / sqrt(var + eps), <rx>, <xh rx>
    __device__ __forceinline__ real xh(real x) const { return s * (x - mean); }
    __device__ __forceinline__ real rxh(real rx, real xh) const
    {
        return s * (rx - rmean - xh * incline);
    }
    __device__ __forceinline__ real rs() const { return -s * s * incline; }
};

template <class Of>
__device__ void r_forward(Of of, real *ry, real *rmean, real *incline, const real *rx,
                          const real *y, const Winner *place, const real *x, Norm norm, real gamma,
                          real rgamma, real rbeta, real slope, real *room, bool held,
                          PartialSums &part)
{
    Channel xs = load_channel(x, room, held, of),
            rxs = load_channel(rx, room + of.pixels(), held, of);
    __syncthreads();
    real sum[2] = {0, 0}, M = of.pixels();  // of rx, xh rx
    auto terms = [&](Index3 at) {
        real rx_i = rxs.at(at.hi, at.lo);
        return Terms<2>{rx_i, norm.xh(xs.at(at.hi, at.lo)) * rx_i};
    };
    each(of.N, 1, of.H * of.W, terms, [&](Index3, Terms<2> t) { add(sum, t); });
    block_sums(sum, part);
    norm.rmean = sum[0] / M, norm.incline = sum[1] / M;
    if (threadIdx.x == 0) rmean[blockIdx.x] = norm.rmean, incline[blockIdx.x] = norm.incline;
    auto ry_of = [&](Index3 at) {
        int i = of.in_y(at), l = of.pixel(at, Of::POOLED ? place[i] : 0);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        return slope_at(y[i], slope) * (rgamma * xh + gamma * rxh + rbeta);
    };
    each(of.N, of.Ho, of.Wo, ry_of, [&](Index3 at, real a) { ry[of.in_y(at)] = a; });
}

extern "C" __global__ void norm_act_pool_r_forward(
    OUTPUT(real, ry), OUTPUT(real, rmean), OUTPUT(real, incline), ARRAY(real, rx), ARRAY(real, y),
    ARRAY(Winner, place), ARRAY(real, x), ARRAY(real, mean), ARRAY(real, s), ARRAY(real, gamma),
    ARRAY(real, rgamma), ARRAY(real, rbeta), CHANNEL, real slope)
{
    __shared__ PartialSums part;
    DYNAMIC_SHARED(real, room);
    int c = blockIdx.x;
    Norm norm = {OF_TASK(mean)[c], OF_TASK(s)[c], 0, 0};
    FOR_WINDOWS(r_forward, OF_TASK(ry), OF_TASK(rmean), OF_TASK(incline), OF_TASK(rx), OF_TASK(y),
                OF_TASK(place), OF_TASK(x), norm, OF_TASK(gamma)[c], OF_TASK(rgamma)[c],
                OF_TASK(rbeta)[c], slope, room, held, part);
}

// ---- r_backward: the product rule on each line of backward --------------------------

template <class Of>
__device__ void r_backward(Of of, real *rdx, real *rdgamma, real *rdbeta, const real *dy,
                           const real *rdy, const real *y, const Winner *place, const real *x,
                           const real *rx, Norm norm, real gamma, real rgamma, real slope,
                           real *room, bool held, PartialSums &part)
{
    Channel xs = load_channel(x, room, held, of),
            rxs = load_channel(rx, room + of.pixels(), held, of);
    __syncthreads();
    real sum[5] = {0, 0, 0, 0, 0}, M = of.pixels();  // of du, rdu, du xh, rdu xh, du rxh
    auto terms = [&](Index3 at) {
        int i = of.in_y(at), l = of.pixel(at, Of::POOLED ? place[i] : 0);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        real du = slope_at(y[i], slope) * dy[i], rdu = slope_at(y[i], slope) * rdy[i];
        return Terms<5>{du, rdu, du * xh, rdu * xh, du * rxh};
    };
    each(of.N, of.Ho, of.Wo, terms, [&](Index3, Terms<5> t) { add(sum, t); });
    block_sums(sum, part);
    if (threadIdx.x == 0) rdgamma[blockIdx.x] = sum[3] + sum[4], rdbeta[blockIdx.x] = sum[1];
    real dxh_mean = gamma * sum[0] / M, rdxh_mean = (rgamma * sum[0] + gamma * sum[1]) / M;
    real incline = gamma * sum[2] / M, rincline = (rgamma * sum[2] + gamma * (sum[3] + sum[4])) / M;
    auto rdx_of = [&](Index3 at) {
        WindowOf<Of> window(of, place, at);
        int l = of.in_image(at);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        real leaky_relu = slope_at(y[window.in_y], slope),
             du = window.of(leaky_relu * dy[window.in_y]),
             rdu = window.of(leaky_relu * rdy[window.in_y]);
        real inner = gamma * du - dxh_mean - xh * incline;
        real rinner = rgamma * du + gamma * rdu - rdxh_mean - rxh * incline - xh * rincline;
        return norm.rs() * inner + norm.s * rinner;
    };
    each(of.N, of.H, of.W, rdx_of, [&](Index3 at, real a) { rdx[of.in_x(at)] = a; });
}

extern "C" __global__ void norm_act_pool_r_backward(
    OUTPUT(real, rdx), OUTPUT(real, rdgamma), OUTPUT(real, rdbeta), ARRAY(real, dy),
    ARRAY(real, rdy), ARRAY(real, y), ARRAY(Winner, place), ARRAY(real, x), ARRAY(real, mean),
    ARRAY(real, s), ARRAY(real, rx), ARRAY(real, rmean), ARRAY(real, incline), ARRAY(real, gamma),
    ARRAY(real, rgamma), CHANNEL, real slope)
{
    __shared__ PartialSums part;
    DYNAMIC_SHARED(real, room);
    int c = blockIdx.x;
    Norm norm = {OF_TASK(mean)[c], OF_TASK(s)[c], OF_TASK(rmean)[c], OF_TASK(incline)[c]};
    FOR_WINDOWS(r_backward, OF_TASK(rdx), OF_TASK(rdgamma), OF_TASK(rdbeta), OF_TASK(dy),
                OF_TASK(rdy), OF_TASK(y), OF_TASK(place), OF_TASK(x), OF_TASK(rx), norm,
                OF_TASK(gamma)[c], OF_TASK(rgamma)[c], slope, room, held, part);
}
