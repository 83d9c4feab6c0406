// Feature-wise linear modulation: see reference.py.

// y[n,c,l] = gamma[c] x[n,c,l] + beta[c], one thread for each number.
extern "C" __global__ void film_forward(OUTPUT(real, y), ARRAY(real, x), ARRAY(real, gamma),
                                        ARRAY(real, beta), int N, int C, int L)
{
    int i = my_element(), c = i / L % C;
    if (i < N * C * L) OF_TASK(y)[i] = OF_TASK(gamma)[c] * OF_TASK(x)[i] + OF_TASK(beta)[c];
}

// dx = gamma dy, dgamma[c] = sum dy x, dbeta[c] = sum dy: one team for each channel.
extern "C" __global__ void film_backward(OUTPUT(real, dx), OUTPUT(real, dgamma),
                                         OUTPUT(real, dbeta), ARRAY(real, dy), ARRAY(real, x),
                                         ARRAY(real, gamma), int N, int C, int L)
{
    int c = blockIdx.x;
    real scale = OF_TASK(gamma)[c], product = 0, total = 0;
    for (int e = threadIdx.x; e < N * L; e += TEAM) {
        int i = channel_at(e, c, C, L);
        real dy_i = OF_TASK(dy)[i];
        OF_TASK(dx)[i] = scale * dy_i;
        product += dy_i * OF_TASK(x)[i];
        total += dy_i;
    }
    product = team_sum(product);
    total = team_sum(total);
    if (threadIdx.x == 0) OF_TASK(dgamma)[c] = product, OF_TASK(dbeta)[c] = total;
}

// ry = gamma rx + rgamma x + rbeta, one thread for each number.
extern "C" __global__ void film_r_forward(OUTPUT(real, ry), ARRAY(real, x), ARRAY(real, rx),
                                          ARRAY(real, gamma), ARRAY(real, rgamma),
                                          ARRAY(real, rbeta), int N, int C, int L)
{
    int i = my_element(), c = i / L % C;
    if (i < N * C * L) OF_TASK(ry)
    [i] =
        OF_TASK(gamma)[c] * OF_TASK(rx)[i] + OF_TASK(rgamma)[c] * OF_TASK(x)[i] + OF_TASK(rbeta)[c];
}

// The product rule on each line of film_backward: one team for each channel.
extern "C" __global__ void film_r_backward(OUTPUT(real, rdx), OUTPUT(real, rdgamma),
                                           OUTPUT(real, rdbeta), ARRAY(real, dy), ARRAY(real, rdy),
                                           ARRAY(real, x), ARRAY(real, rx), ARRAY(real, gamma),
                                           ARRAY(real, rgamma), int N, int C, int L)
{
    int c = blockIdx.x;
    real scale = OF_TASK(gamma)[c], rscale = OF_TASK(rgamma)[c], product = 0, total = 0;
    for (int e = threadIdx.x; e < N * L; e += TEAM) {
        int i = channel_at(e, c, C, L);
        real dy_i = OF_TASK(dy)[i], rdy_i = OF_TASK(rdy)[i];
        OF_TASK(rdx)[i] = scale * rdy_i + rscale * dy_i;
        product += rdy_i * OF_TASK(x)[i] + dy_i * OF_TASK(rx)[i];
        total += rdy_i;
    }
    product = team_sum(product);
    total = team_sum(total);
    if (threadIdx.x == 0) OF_TASK(rdgamma)[c] = product, OF_TASK(rdbeta)[c] = total;
}
