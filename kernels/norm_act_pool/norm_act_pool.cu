// Batch-norm, a piecewise linear activation and max-pooling in one go: see reference.py for the formulas, the arguments and their names.
//
// A block for each (task, channel): it brings the channel's M = N H W numbers to shared memory where they fit (else it reads them again),
// adds up, and writes results once. Between the passes of three layers the normalised input, the activations and their adjoints would
// go to memory and back; here they are computed anew from x, and only what the next layer reads is written.
//
// A thread works out AT_ONCE results before it keeps the first of them, be it in memory or in a sum. Loads may not pass a store, which
// could be to what they read, so one after the other each would wait for memory by itself.
//
//   v1  one result after the other
//   v2  AT_ONCE. Not yet timed on a GPU.
//
// Windows of 1 x 1 (nothing is pooled) and 2 x 2 are compiled for themselves: no division by a window's extents is left.
#define CHANNEL int N, int C, int H, int W, int Ho, int Wo, int kH, int kW, int held

#define FOR_WINDOWS(pass, ...) \
    if (kH == 1 && kW == 1) pass(Windows<1>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__); \
    else if (kH == 2 && kW == 2) pass(Windows<2>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__); \
    else pass(Windows<0>{N, C, H, W, Ho, Wo, kH, kW}, __VA_ARGS__)

typedef signed char Winner;                             // the place p kW + q in its window

// The extents; SIDE is that of a window where it is known when this is compiled, else 0.
template <int SIDE> struct Windows {
    int N, C, H, W, Ho, Wo, height_, width_;
    enum { POOLED = SIDE != 1 };
    __device__ __forceinline__ int height() const { return SIDE ? SIDE : height_; }
    __device__ __forceinline__ int width() const { return SIDE ? SIDE : width_; }
    __device__ __forceinline__ int pixels() const { return N * H * W; }
    // Where pixel (image, a, b) of this block's channel lies in an image, and in x.
    __device__ __forceinline__ int in_image(Place at) const { return at.mid * W + at.lo; }
    __device__ __forceinline__ int in_x(Place at) const { return (at.hi * C + blockIdx.x) * H * W + in_image(at); }
    // Where window (image, a, b) of this block's channel lies in y, and where its pixel number `place` lies in an image.
    __device__ __forceinline__ int in_y(Place at) const { return ((at.hi * C + blockIdx.x) * Ho + at.mid) * Wo + at.lo; }
    __device__ __forceinline__ int pixel(Place at, int place) const
    {
        return POOLED ? (at.mid * height() + place / width()) * W + at.lo * width() + place % width() : at.mid * W + at.lo;
    }
};

// The numbers of this block's channel: pixel l of image n at from[n step + l].
struct Channel {
    const real *from;
    int step;
    __device__ __forceinline__ real at(int n, int l) const { return from[n * step + l]; }
};

// keep(at, find(at)) for each place of a box of N x A x B, in the same order by the same threads at every launch. Behind the last place
// the first of the four is found again, and not kept.
enum { AT_ONCE = 4 };
template <class Find, class Keep> __device__ __forceinline__ void each(int N, int A, int B, Find find, Keep keep)
{
    Place by = place_of(blockDim.x, A, B);
    for (Place at = place_of(threadIdx.x, A, B); at.hi < N;) {
        Place first = at, places[AT_ONCE];
        decltype(find(at)) found[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++, at.advance(by, A, B)) {
            places[j] = at;
            found[j] = find(at.hi < N ? at : first);
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (places[j].hi < N) keep(places[j], found[j]);
    }
}

// What a place adds to COUNT sums.
template <int COUNT> struct Terms { real of[COUNT]; };
template <int COUNT> __device__ __forceinline__ void add(real (&sum)[COUNT], const Terms<COUNT> &terms)
{
#pragma unroll
    for (int k = 0; k < COUNT; k++) sum[k] += terms.of[k];
}

// The channel of `x`, copied to `room` if it is held there. A barrier must follow before anybody reads it.
template <class Of> __device__ __forceinline__ Channel bring(const real *x, real *room, bool held, Of of)
{
    int L = of.H * of.W, c = blockIdx.x;
    Channel far = {x + c * L, of.C * L};
    if (!held) return far;
    each(of.N, 1, L, [&](Place at) { return far.at(at.hi, at.lo); }, [&](Place at, real x) { room[at.hi * L + at.lo] = x; });
    return {room, L};
}

// u where u > 0, slope u elsewhere; NaN passes through, and 0 times infinity is 0.
__device__ __forceinline__ real leaky_relu(real u, real slope) { return !(u <= 0) ? u : slope == 0 ? 0 : slope * u; }

// f'(u) of the u that won, read off y = f(u).
__device__ __forceinline__ real bend(real y, real slope) { return y <= 0 ? slope : 1; }

// ---- forward: xh = s (x - <x>), y = the largest of leaky_relu(gamma xh + beta) --------------------------------------------------------

template <class Of>
__device__ void forward(Of of, real *y, Winner *place, real *mean, real *s, const real *x, real gamma, real beta, real eps, real slope,
                        real *room, bool held, Parts &part)
{
    Channel xs = bring(x, room, held, of);
    __syncthreads();
    real sum[1] = {0}, squares[2] = {0, 0}, M = of.pixels();           // of x; of x - mean and its square
    auto pixel = [&](Place at) { return xs.at(at.hi, at.lo); };
    each(of.N, 1, of.H * of.W, pixel, [&](Place, real x) { sum[0] += x; });
    block_sums(sum, part);
    real mean_c = sum[0] / M;
    each(of.N, 1, of.H * of.W, pixel, [&](Place, real x) { add(squares, Terms<2>{x - mean_c, (x - mean_c) * (x - mean_c)}); });
    block_sums(squares, part);
    real rest = squares[0] / M, s_c = 1 / sqrt(corrected(squares[1] / M, rest) + eps);
    mean_c += rest;
    if (threadIdx.x == 0) mean[blockIdx.x] = mean_c, s[blockIdx.x] = s_c;
    struct Best { real a; int winner; };
    auto largest = [&](Place at) {
        Best best = {0, 0};
        for (int k = 0; k < (Of::POOLED ? of.height() * of.width() : 1); k++) {       // the first of equals; NaN wins over everything
            real a = leaky_relu(gamma * (s_c * (xs.at(at.hi, of.pixel(at, k)) - mean_c)) + beta, slope);
            if (k == 0 || a > best.a || (a != a && best.a == best.a)) best = {a, k};
        }
        return best;
    };
    each(of.N, of.Ho, of.Wo, largest, [&](Place at, Best best) {
        y[of.in_y(at)] = best.a;
        if (Of::POOLED) place[of.in_y(at)] = best.winner;
    });
}

extern "C" __global__ void norm_act_pool_forward(OUTPUT(real, y), OUTPUT(Winner, place), OUTPUT(real, mean), OUTPUT(real, s),
                                                 ARRAY(real, x), ARRAY(real, gamma), ARRAY(real, beta), CHANNEL, real eps, real slope)
{
    __shared__ Parts part;
    ROOM(real, room);
    FOR_WINDOWS(forward, OF_TASK(y), OF_TASK(place), OF_TASK(mean), OF_TASK(s), OF_TASK(x), OF_TASK(gamma)[blockIdx.x],
                OF_TASK(beta)[blockIdx.x], eps, slope, room, held, part);
}

// ---- backward: du = f'(u) dy at the winners, 0 elsewhere; dx = s (dxh - <dxh> - xh <dxh xh>) with dxh = gamma du -----------------

// The window that holds pixel (row, column), and whether that pixel won it. A rim that fills no whole window has none, and is shown
// another: so that a load behind a seat need not wait to know who sits there.
template <class Of> struct Seat {
    bool won;
    int in_y;
    __device__ __forceinline__ Seat(Of of, const Winner *place, Place pixel)
    {
        int a = Of::POOLED ? pixel.mid / of.height() : pixel.mid, b = Of::POOLED ? pixel.lo / of.width() : pixel.lo;
        bool rim = Of::POOLED && (a >= of.Ho || b >= of.Wo);
        in_y = of.in_y(rim ? Place{pixel.hi, 0, 0} : Place{pixel.hi, a, b});
        won = !Of::POOLED || (!rim & (place[in_y] == (pixel.mid - a * of.height()) * of.width() + pixel.lo - b * of.width()));
    }
    __device__ __forceinline__ real of(real du) const { return won ? du : 0; }
};

template <class Of>
__device__ void backward(Of of, real *dx, real *dgamma, real *dbeta, const real *dy, const real *y, const Winner *place, const real *x,
                         real mean, real s, real gamma, real slope, real *room, bool held, Parts &part)
{
    Channel xs = bring(x, room, held, of);
    __syncthreads();
    real sum[2] = {0, 0}, M = of.pixels();                           // of du, du xh
    auto terms = [&](Place at) {
        int i = of.in_y(at);
        real du = bend(y[i], slope) * dy[i];
        return Terms<2>{du, du * (s * (xs.at(at.hi, of.pixel(at, Of::POOLED ? place[i] : 0)) - mean))};
    };
    each(of.N, of.Ho, of.Wo, terms, [&](Place, Terms<2> t) { add(sum, t); });
    block_sums(sum, part);
    if (threadIdx.x == 0) dbeta[blockIdx.x] = sum[0], dgamma[blockIdx.x] = sum[1];
    real dxh_mean = gamma * sum[0] / M, incline = gamma * sum[1] / M;
    auto dx_of = [&](Place at) {
        Seat<Of> seat(of, place, at);
        real dxh = gamma * seat.of(bend(y[seat.in_y], slope) * dy[seat.in_y]);
        return s * (dxh - dxh_mean - s * (xs.at(at.hi, of.in_image(at)) - mean) * incline);
    };
    each(of.N, of.H, of.W, dx_of, [&](Place at, real a) { dx[of.in_x(at)] = a; });
}

extern "C" __global__ void norm_act_pool_backward(OUTPUT(real, dx), OUTPUT(real, dgamma), OUTPUT(real, dbeta), ARRAY(real, dy),
                                                  ARRAY(real, y), ARRAY(Winner, place), ARRAY(real, x), ARRAY(real, mean), ARRAY(real, s),
                                                  ARRAY(real, gamma), CHANNEL, real slope)
{
    __shared__ Parts part;
    ROOM(real, room);
    int c = blockIdx.x;
    FOR_WINDOWS(backward, OF_TASK(dx), OF_TASK(dgamma), OF_TASK(dbeta), OF_TASK(dy), OF_TASK(y), OF_TASK(place), OF_TASK(x),
                OF_TASK(mean)[c], OF_TASK(s)[c], OF_TASK(gamma)[c], slope, room, held, part);
}

// ---- r_forward: rxh = s (rx - <rx> - xh <xh rx>), ry = f'(u) (rgamma xh + gamma rxh + rbeta) at the winners ---------------------

// What a channel was normalised by, and its tangent.
struct Norm {
    real mean, s, rmean, incline;                                    // <x>, 1 / sqrt(var + eps), <rx>, <xh rx>
    __device__ __forceinline__ real xh(real x) const { return s * (x - mean); }
    __device__ __forceinline__ real rxh(real rx, real xh) const { return s * (rx - rmean - xh * incline); }
    __device__ __forceinline__ real rs() const { return -s * s * incline; }
};

template <class Of>
__device__ void r_forward(Of of, real *ry, real *rmean, real *incline, const real *rx, const real *y, const Winner *place, const real *x,
                          Norm norm, real gamma, real rgamma, real rbeta, real slope, real *room, bool held, Parts &part)
{
    Channel xs = bring(x, room, held, of), rxs = bring(rx, room + of.pixels(), held, of);
    __syncthreads();
    real sum[2] = {0, 0}, M = of.pixels();                           // of rx, xh rx
    auto terms = [&](Place at) {
        real rx_i = rxs.at(at.hi, at.lo);
        return Terms<2>{rx_i, norm.xh(xs.at(at.hi, at.lo)) * rx_i};
    };
    each(of.N, 1, of.H * of.W, terms, [&](Place, Terms<2> t) { add(sum, t); });
    block_sums(sum, part);
    norm.rmean = sum[0] / M, norm.incline = sum[1] / M;
    if (threadIdx.x == 0) rmean[blockIdx.x] = norm.rmean, incline[blockIdx.x] = norm.incline;
    auto ry_of = [&](Place at) {
        int i = of.in_y(at), l = of.pixel(at, Of::POOLED ? place[i] : 0);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        return bend(y[i], slope) * (rgamma * xh + gamma * rxh + rbeta);
    };
    each(of.N, of.Ho, of.Wo, ry_of, [&](Place at, real a) { ry[of.in_y(at)] = a; });
}

extern "C" __global__ void norm_act_pool_r_forward(OUTPUT(real, ry), OUTPUT(real, rmean), OUTPUT(real, incline), ARRAY(real, rx),
                                                   ARRAY(real, y), ARRAY(Winner, place), ARRAY(real, x), ARRAY(real, mean), ARRAY(real, s),
                                                   ARRAY(real, gamma), ARRAY(real, rgamma), ARRAY(real, rbeta), CHANNEL, real slope)
{
    __shared__ Parts part;
    ROOM(real, room);
    int c = blockIdx.x;
    Norm norm = {OF_TASK(mean)[c], OF_TASK(s)[c], 0, 0};
    FOR_WINDOWS(r_forward, OF_TASK(ry), OF_TASK(rmean), OF_TASK(incline), OF_TASK(rx), OF_TASK(y), OF_TASK(place), OF_TASK(x), norm,
                OF_TASK(gamma)[c], OF_TASK(rgamma)[c], OF_TASK(rbeta)[c], slope, room, held, part);
}

// ---- r_backward: the product rule on each line of backward ------------------------------------------------------------------------

template <class Of>
__device__ void r_backward(Of of, real *rdx, real *rdgamma, real *rdbeta, const real *dy, const real *rdy, const real *y,
                           const Winner *place, const real *x, const real *rx, Norm norm, real gamma, real rgamma, real slope, real *room,
                           bool held, Parts &part)
{
    Channel xs = bring(x, room, held, of), rxs = bring(rx, room + of.pixels(), held, of);
    __syncthreads();
    real sum[5] = {0, 0, 0, 0, 0}, M = of.pixels();                  // of du, rdu, du xh, rdu xh, du rxh
    auto terms = [&](Place at) {
        int i = of.in_y(at), l = of.pixel(at, Of::POOLED ? place[i] : 0);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        real du = bend(y[i], slope) * dy[i], rdu = bend(y[i], slope) * rdy[i];
        return Terms<5>{du, rdu, du * xh, rdu * xh, du * rxh};
    };
    each(of.N, of.Ho, of.Wo, terms, [&](Place, Terms<5> t) { add(sum, t); });
    block_sums(sum, part);
    if (threadIdx.x == 0) rdgamma[blockIdx.x] = sum[3] + sum[4], rdbeta[blockIdx.x] = sum[1];
    real dxh_mean = gamma * sum[0] / M, rdxh_mean = (rgamma * sum[0] + gamma * sum[1]) / M;
    real incline = gamma * sum[2] / M, rincline = (rgamma * sum[2] + gamma * (sum[3] + sum[4])) / M;
    auto rdx_of = [&](Place at) {
        Seat<Of> seat(of, place, at);
        int l = of.in_image(at);
        real xh = norm.xh(xs.at(at.hi, l)), rxh = norm.rxh(rxs.at(at.hi, l), xh);
        real leaky_relu = bend(y[seat.in_y], slope), du = seat.of(leaky_relu * dy[seat.in_y]), rdu = seat.of(leaky_relu * rdy[seat.in_y]);
        real inner = gamma * du - dxh_mean - xh * incline;
        real rinner = rgamma * du + gamma * rdu - rdxh_mean - rxh * incline - xh * rincline;
        return norm.rs() * inner + norm.s * rinner;
    };
    each(of.N, of.H, of.W, rdx_of, [&](Place at, real a) { rdx[of.in_x(at)] = a; });
}

extern "C" __global__ void norm_act_pool_r_backward(OUTPUT(real, rdx), OUTPUT(real, rdgamma), OUTPUT(real, rdbeta), ARRAY(real, dy),
                                                    ARRAY(real, rdy), ARRAY(real, y), ARRAY(Winner, place), ARRAY(real, x),
                                                    ARRAY(real, mean), ARRAY(real, s), ARRAY(real, rx), ARRAY(real, rmean),
                                                    ARRAY(real, incline), ARRAY(real, gamma), ARRAY(real, rgamma), CHANNEL, real slope)
{
    __shared__ Parts part;
    ROOM(real, room);
    int c = blockIdx.x;
    Norm norm = {OF_TASK(mean)[c], OF_TASK(s)[c], OF_TASK(rmean)[c], OF_TASK(incline)[c]};
    FOR_WINDOWS(r_backward, OF_TASK(rdx), OF_TASK(rdgamma), OF_TASK(rdbeta), OF_TASK(dy), OF_TASK(rdy), OF_TASK(y), OF_TASK(place),
                OF_TASK(x), OF_TASK(rx), norm, OF_TASK(gamma)[c], OF_TASK(rgamma)[c], slope, room, held, part);
}
