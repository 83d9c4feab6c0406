// Normalisation over groups of one example: reference.py has the formulas and the names.
//
// One team of threads for each group of each example of a task. The M numbers of a group
// follow each other in memory. The team reads them once for each mean and once more, from
// the cache, for the results. `sharing` neighbouring numbers share an entry of gamma:
// those of a channel, or 1. The gradients of gamma and beta are sums over examples, so
// they have kernels of their own: one team for each entry.

// Where a group begins in its task, and in its example.
struct Group {
    int first, inside;
};
__device__ __forceinline__ Group this_group(int G, int M)
{
    int i = blockIdx.x;
    return {i * M, i % G * M};
}

// y, xh, s: first the mean, then the mean and the variance of centred values.
extern "C" __global__ void group_norm_forward(OUTPUT(real, y), OUTPUT(real, xh), OUTPUT(real, s),
                                              ARRAY(real, x), ARRAY(real, gamma), ARRAY(real, beta),
                                              int G, int M, int sharing, real eps)
{
    Group at = this_group(G, M);
    const real *x_g = OF_TASK(x) + at.first, *gamma_t = OF_TASK(gamma), *beta_t = OF_TASK(beta);
    real sum = 0, rest = 0, square = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) sum += x_g[e];
    real mean = team_sum(sum) / M;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        real centred = x_g[e] - mean;
        rest += centred;
        square += centred * centred;
    }
    rest = team_sum(rest) / M;
    real s_g = 1 / sqrt(corrected(team_sum(square) / M, rest) + eps);
    if (threadIdx.x == 0) OF_TASK(s)[blockIdx.x] = s_g;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = at.first + e, p = (at.inside + e) / sharing;
        real xh_i = s_g * ((x_g[e] - mean) - rest);
        OF_TASK(xh)[i] = xh_i;
        OF_TASK(y)[i] = gamma_t[p] * xh_i + beta_t[p];
    }
}

// dx = s (dxh - <dxh> - xh <dxh xh>) with dxh = gamma dy.
extern "C" __global__ void group_norm_backward(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, xh),
                                               ARRAY(real, s), ARRAY(real, gamma), int G, int M,
                                               int sharing)
{
    Group at = this_group(G, M);
    const real *dy_g = OF_TASK(dy) + at.first, *xh_g = OF_TASK(xh) + at.first,
               *gamma_t = OF_TASK(gamma);
    real total = 0, product = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        real dxh = gamma_t[(at.inside + e) / sharing] * dy_g[e];
        total += dxh;
        product += dxh * xh_g[e];
    }
    real mean = team_sum(total) / M, slope = team_sum(product) / M, s_g = OF_TASK(s)[blockIdx.x];
    for (int e = threadIdx.x; e < M; e += TEAM) {
        real dxh = gamma_t[(at.inside + e) / sharing] * dy_g[e];
        OF_TASK(dx)[at.first + e] = s_g * (dxh - mean - xh_g[e] * slope);
    }
}

// dgamma = sum dy xh, dbeta = sum dy, over the numbers of N examples that share an entry.
extern "C" __global__ void group_norm_parameters_backward(OUTPUT(real, dgamma), OUTPUT(real, dbeta),
                                                          ARRAY(real, dy), ARRAY(real, xh), int N,
                                                          int entries, int sharing)
{
    int p = blockIdx.x;
    real product = 0, total = 0;
    for (int e = threadIdx.x; e < N * sharing; e += TEAM) {
        int i = channel_at(e, p, entries, sharing);
        product += OF_TASK(dy)[i] * OF_TASK(xh)[i];
        total += OF_TASK(dy)[i];
    }
    product = team_sum(product);
    total = team_sum(total);
    if (threadIdx.x == 0) OF_TASK(dgamma)[p] = product, OF_TASK(dbeta)[p] = total;
}

// rc = rx - <rx>, rxh = s (rc - xh <xh rc>), rs = -s^2 <xh rc>,
// ry = rgamma xh + gamma rxh + rbeta.
extern "C" __global__ void group_norm_r_forward(OUTPUT(real, ry), OUTPUT(real, rxh),
                                                OUTPUT(real, rs), ARRAY(real, rx), ARRAY(real, xh),
                                                ARRAY(real, s), ARRAY(real, gamma),
                                                ARRAY(real, rgamma), ARRAY(real, rbeta), int G,
                                                int M, int sharing)
{
    Group at = this_group(G, M);
    const real *rx_g = OF_TASK(rx) + at.first, *xh_g = OF_TASK(xh) + at.first;
    real total = 0, rest = 0, product = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) total += rx_g[e];
    real mean = team_sum(total) / M;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        real centred = rx_g[e] - mean;
        rest += centred;
        product += xh_g[e] * centred;
    }
    rest = team_sum(rest) / M;
    real slope = team_sum(product) / M, s_g = OF_TASK(s)[blockIdx.x];
    if (threadIdx.x == 0) OF_TASK(rs)[blockIdx.x] = -s_g * s_g * slope;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = at.first + e, p = (at.inside + e) / sharing;
        real rxh_i = s_g * ((rx_g[e] - mean) - rest - xh_g[e] * slope);
        OF_TASK(rxh)[i] = rxh_i;
        OF_TASK(ry)[i] = OF_TASK(rgamma)[p] * xh_g[e] + OF_TASK(gamma)[p] * rxh_i +
                         OF_TASK(rbeta)[p];
    }
}

// The product rule on each line of group_norm_backward.
extern "C" __global__ void group_norm_r_backward(OUTPUT(real, rdx), ARRAY(real, dy),
                                                 ARRAY(real, rdy), ARRAY(real, xh), ARRAY(real, s),
                                                 ARRAY(real, rxh), ARRAY(real, rs),
                                                 ARRAY(real, gamma), ARRAY(real, rgamma), int G,
                                                 int M, int sharing)
{
    Group at = this_group(G, M);
    const real *dy_g = OF_TASK(dy) + at.first, *rdy_g = OF_TASK(rdy) + at.first,
               *xh_g = OF_TASK(xh) + at.first, *rxh_g = OF_TASK(rxh) + at.first,
               *gamma_t = OF_TASK(gamma), *rgamma_t = OF_TASK(rgamma);
    real total = 0, rtotal = 0, product = 0, rproduct = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int p = (at.inside + e) / sharing;
        real dxh = gamma_t[p] * dy_g[e], rdxh = rgamma_t[p] * dy_g[e] + gamma_t[p] * rdy_g[e];
        total += dxh;
        rtotal += rdxh;
        product += dxh * xh_g[e];
        rproduct += rdxh * xh_g[e] + dxh * rxh_g[e];
    }
    real mean = team_sum(total) / M, rmean = team_sum(rtotal) / M;
    real slope = team_sum(product) / M, rslope = team_sum(rproduct) / M;
    real s_g = OF_TASK(s)[blockIdx.x], rs_g = OF_TASK(rs)[blockIdx.x];
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int p = (at.inside + e) / sharing;
        real dxh = gamma_t[p] * dy_g[e], rdxh = rgamma_t[p] * dy_g[e] + gamma_t[p] * rdy_g[e];
        real inner = dxh - mean - xh_g[e] * slope,
             rinner = rdxh - rmean - rxh_g[e] * slope - xh_g[e] * rslope;
        OF_TASK(rdx)[at.first + e] = rs_g * inner + s_g * rinner;
    }
}

// The product rule on each line of group_norm_parameters_backward.
extern "C" __global__ void group_norm_parameters_r_backward(OUTPUT(real, rdgamma),
                                                            OUTPUT(real, rdbeta), ARRAY(real, dy),
                                                            ARRAY(real, rdy), ARRAY(real, xh),
                                                            ARRAY(real, rxh), int N, int entries,
                                                            int sharing)
{
    int p = blockIdx.x;
    real product = 0, total = 0;
    for (int e = threadIdx.x; e < N * sharing; e += TEAM) {
        int i = channel_at(e, p, entries, sharing);
        product += OF_TASK(rdy)[i] * OF_TASK(xh)[i] + OF_TASK(dy)[i] * OF_TASK(rxh)[i];
        total += OF_TASK(rdy)[i];
    }
    product = team_sum(product);
    total = team_sum(total);
    if (threadIdx.x == 0) OF_TASK(rdgamma)[p] = product, OF_TASK(rdbeta)[p] = total;
}
