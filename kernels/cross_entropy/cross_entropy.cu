// Softmax cross-entropy: see reference.py. One thread for each example; a team adds up
// the examples of a task.

extern "C" __global__ void cross_entropy_forward(OUTPUT(real, loss), OUTPUT(real, p),
                                                 ARRAY(real, z), ARRAY(long long, labels), int N,
                                                 int C, real scale)
{
    real sum = 0;
    for (int n = threadIdx.x; n < N; n += TEAM) {
        const real *z_n = OF_TASK(z) + n * C;
        real *p_n = OF_TASK(p) + n * C, largest = z_n[0], total = 0;
        for (int c = 1; c < C; c++)
            if (z_n[c] > largest || z_n[c] != z_n[c]) largest = z_n[c];  // NaN stays the largest
        for (int c = 0; c < C; c++) total += p_n[c] = exp(z_n[c] - largest);
        for (int c = 0; c < C; c++) p_n[c] /= total;
        long long label = OF_TASK(labels)[n];
        // NaN for a label that names no output.
        real z_label = label >= 0 && label < C ? z_n[label] : sqrt(real(-1));
        sum += log(total) - (z_label - largest);
    }
    sum = team_sum(sum);
    if (threadIdx.x == 0) OF_TASK(loss)[0] = scale * sum;
}

// dz = scale (p - onehot), one thread for each number.
extern "C" __global__ void cross_entropy_backward(OUTPUT(real, dz), ARRAY(real, p),
                                                  ARRAY(long long, labels), int N, int C,
                                                  real scale)
{
    int i = my_element();
    if (i < N * C)
        OF_TASK(dz)[i] = scale * (OF_TASK(p)[i] - (i % C == OF_TASK(labels)[i / C] ? 1 : 0));
}

// rdz = scale p (rz - <p, rz>), one thread for each example.
extern "C" __global__ void cross_entropy_r_backward(OUTPUT(real, rdz), ARRAY(real, p),
                                                    ARRAY(real, rz), int N, int C, real scale)
{
    int n = my_element();
    if (n >= N) return;
    const real *p_n = OF_TASK(p) + n * C, *rz_n = OF_TASK(rz) + n * C;
    real *rdz_n = OF_TASK(rdz) + n * C, mean = 0;
    for (int c = 0; c < C; c++) mean += p_n[c] * rz_n[c];
    for (int c = 0; c < C; c++) rdz_n[c] = scale * p_n[c] * (rz_n[c] - mean);
}
