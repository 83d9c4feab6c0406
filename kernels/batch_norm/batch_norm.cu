// Batch normalisation: reference.py has the formulas and the names.
//
// One team of threads for each (task, channel). It reads the M = N L numbers of the
// channel once for the sums and once more, from the cache, for the results.

// y, xh, s: first the mean, then the mean and the variance of centred values.
extern "C" __global__ void batch_norm_forward(OUTPUT(real, y), OUTPUT(real, xh), OUTPUT(real, s),
                                              ARRAY(real, x), ARRAY(real, gamma), ARRAY(real, beta),
                                              int N, int C, int L, real eps)
{
    int c = blockIdx.x, M = N * L;
    const real *x_t = OF_TASK(x);
    real sum = 0, rest = 0, square = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) sum += x_t[channel_at(e, c, C, L)];
    real mean = team_sum(sum) / M;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        real centred = x_t[channel_at(e, c, C, L)] - mean;
        rest += centred;
        square += centred * centred;
    }
    rest = team_sum(rest) / M;
    real variance = corrected(team_sum(square) / M, rest);
    real s_c = 1 / sqrt(variance + eps), gamma_c = OF_TASK(gamma)[c], beta_c = OF_TASK(beta)[c];
    if (threadIdx.x == 0) OF_TASK(s)[c] = s_c;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        real xh_i = s_c * ((x_t[i] - mean) - rest);
        OF_TASK(xh)[i] = xh_i;
        OF_TASK(y)[i] = gamma_c * xh_i + beta_c;
    }
}

// dx = s (dxh - <dxh> - xh <dxh xh>) with dxh = gamma dy;
// dgamma = sum dy xh, dbeta = sum dy.
extern "C" __global__ void batch_norm_backward(OUTPUT(real, dx), OUTPUT(real, dgamma),
                                               OUTPUT(real, dbeta), ARRAY(real, dy),
                                               ARRAY(real, xh), ARRAY(real, s), ARRAY(real, gamma),
                                               int N, int C, int L)
{
    int c = blockIdx.x, M = N * L;
    const real *dy_t = OF_TASK(dy), *xh_t = OF_TASK(xh);
    real product = 0, total = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        product += dy_t[i] * xh_t[i];
        total += dy_t[i];
    }
    product = team_sum(product);
    total = team_sum(total);
    if (threadIdx.x == 0) OF_TASK(dgamma)[c] = product, OF_TASK(dbeta)[c] = total;
    real gamma_c = OF_TASK(gamma)[c], s_c = OF_TASK(s)[c], mean = gamma_c * total / M,
         slope = gamma_c * product / M;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        OF_TASK(dx)[i] = s_c * (gamma_c * dy_t[i] - mean - xh_t[i] * slope);
    }
}

// rxh = s (rx - <rx> - xh <xh rx>), rs = -s^2 <xh rx>,
// ry = rgamma xh + gamma rxh + rbeta.
extern "C" __global__ void batch_norm_r_forward(OUTPUT(real, ry), OUTPUT(real, rxh),
                                                OUTPUT(real, rs), ARRAY(real, rx), ARRAY(real, xh),
                                                ARRAY(real, s), ARRAY(real, gamma),
                                                ARRAY(real, rgamma), ARRAY(real, rbeta), int N,
                                                int C, int L)
{
    int c = blockIdx.x, M = N * L;
    const real *rx_t = OF_TASK(rx), *xh_t = OF_TASK(xh);
    real product = 0, total = 0;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        product += xh_t[i] * rx_t[i];
        total += rx_t[i];
    }
    real slope = team_sum(product) / M, mean = team_sum(total) / M, s_c = OF_TASK(s)[c];
    if (threadIdx.x == 0) OF_TASK(rs)[c] = -s_c * s_c * slope;
    real gamma_c = OF_TASK(gamma)[c], rgamma_c = OF_TASK(rgamma)[c], rbeta_c = OF_TASK(rbeta)[c];
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        real rxh_i = s_c * (rx_t[i] - mean - xh_t[i] * slope);
        OF_TASK(rxh)[i] = rxh_i;
        OF_TASK(ry)[i] = rgamma_c * xh_t[i] + gamma_c * rxh_i + rbeta_c;
    }
}

// The sums over a channel that batch_norm_r_backward needs, each with its tangent.
struct ChannelSums {
    real dy_xh, rdy_xh, dy_rxh, dy, rdy;
};

__device__ ChannelSums channel_sums(const real *dy, const real *rdy, const real *xh,
                                    const real *rxh, int c, int M, int C, int L)
{
    ChannelSums of = {0, 0, 0, 0, 0};
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        of.dy_xh += dy[i] * xh[i];
        of.rdy_xh += rdy[i] * xh[i];
        of.dy_rxh += dy[i] * rxh[i];
        of.dy += dy[i];
        of.rdy += rdy[i];
    }
    return {team_sum(of.dy_xh), team_sum(of.rdy_xh), team_sum(of.dy_rxh), team_sum(of.dy),
            team_sum(of.rdy)};
}

// The product rule on each line of batch_norm_backward.
extern "C" __global__ void batch_norm_r_backward(OUTPUT(real, rdx), OUTPUT(real, rdgamma),
                                                 OUTPUT(real, rdbeta), ARRAY(real, dy),
                                                 ARRAY(real, rdy), ARRAY(real, xh), ARRAY(real, s),
                                                 ARRAY(real, rxh), ARRAY(real, rs),
                                                 ARRAY(real, gamma), ARRAY(real, rgamma), int N,
                                                 int C, int L)
{
    int c = blockIdx.x, M = N * L;
    const real *dy_t = OF_TASK(dy), *rdy_t = OF_TASK(rdy), *xh_t = OF_TASK(xh),
               *rxh_t = OF_TASK(rxh);
    ChannelSums sum = channel_sums(dy_t, rdy_t, xh_t, rxh_t, c, M, C, L);
    if (threadIdx.x == 0)
        OF_TASK(rdgamma)[c] = sum.rdy_xh + sum.dy_rxh, OF_TASK(rdbeta)[c] = sum.rdy;
    real gamma_c = OF_TASK(gamma)[c], rgamma_c = OF_TASK(rgamma)[c], s_c = OF_TASK(s)[c],
         rs_c = OF_TASK(rs)[c];
    real mean = gamma_c * sum.dy / M, rmean = (rgamma_c * sum.dy + gamma_c * sum.rdy) / M;
    real slope = gamma_c * sum.dy_xh / M,
         rslope = (rgamma_c * sum.dy_xh + gamma_c * (sum.rdy_xh + sum.dy_rxh)) / M;
    for (int e = threadIdx.x; e < M; e += TEAM) {
        int i = channel_at(e, c, C, L);
        real dxh = gamma_c * dy_t[i], rdxh = rgamma_c * dy_t[i] + gamma_c * rdy_t[i];
        real inner = dxh - mean - xh_t[i] * slope,
             rinner = rdxh - rmean - rxh_t[i] * slope - xh_t[i] * rslope;
        OF_TASK(rdx)[i] = rs_c * inner + s_c * rinner;
    }
}
