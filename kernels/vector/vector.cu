// Arithmetic on flat vectors of parameters: see reference.py. One thread for each
// number of a row.

// a b, rounded before it is added to anything, as in the reference: __dmul_rn and
// __fmul_rn prevent a fused multiply-add.
__device__ __forceinline__ real product(real a, real b)
{
#ifdef __CUDA_ARCH__
    return sizeof(real) == 4 ? real(__fmul_rn(float(a), float(b))) : real(__dmul_rn(a, b));
#else
    return a * b;
#endif
}

// out = a - rates b; out may be b.
extern "C" __global__ void vector_step(OUTPUT(real, out), ARRAY(real, a), ARRAY(real, rates),
                                       ARRAY(real, b), int P)
{
    int i = my_element();
    if (i < P) OF_TASK(out)[i] = OF_TASK(a)[i] - product(OF_TASK(rates)[i], OF_TASK(b)[i]);
}

// out = rates b.
extern "C" __global__ void vector_scale(OUTPUT(real, out), ARRAY(real, rates), ARRAY(real, b),
                                        int P)
{
    int i = my_element();
    if (i < P) OF_TASK(out)[i] = OF_TASK(rates)[i] * OF_TASK(b)[i];
}

// out = a + s b with a number s for each row; out = a where s = 0, even if b is not
// finite.
extern "C" __global__ void vector_move(OUTPUT(real, out), ARRAY(real, a), ARRAY(real, s),
                                       ARRAY(real, b), int P)
{
    int i = my_element();
    real rate = OF_TASK(s)[0];
    if (i < P)
        OF_TASK(out)[i] = OF_TASK(a)[i] + (rate == 0 ? real(0) : product(rate, OF_TASK(b)[i]));
}

// out = a - rates (g + strength (a - center)).
extern "C" __global__ void vector_proximal_step(OUTPUT(real, out), ARRAY(real, a),
                                                ARRAY(real, rates), ARRAY(real, g),
                                                ARRAY(real, center), int P, real strength)
{
    int i = my_element();
    if (i >= P) return;
    real a_i = OF_TASK(a)[i], slope = OF_TASK(g)[i] + product(strength, a_i - OF_TASK(center)[i]);
    OF_TASK(out)[i] = a_i - product(OF_TASK(rates)[i], slope);
}

// v = beta2 w + rest g g and out = a - rates g / (sqrt(v / n) + eps); v may be w. rest
// = 1 - beta2 is rounded by the host.
extern "C" __global__ void vector_adam_step(OUTPUT(real, out), OUTPUT(real, v), ARRAY(real, a),
                                            ARRAY(real, rates), ARRAY(real, g), ARRAY(real, w),
                                            ARRAY(real, n), int P, real beta2, real rest, real eps)
{
    int i = my_element();
    if (i >= P) return;
    real g_i = OF_TASK(g)[i];
    real moment = product(beta2, OF_TASK(w)[i]) + product(product(rest, g_i), g_i);
    real root = sqrt(moment / OF_TASK(n)[0]);
    OF_TASK(v)[i] = moment;
    OF_TASK(out)[i] = OF_TASK(a)[i] - product(OF_TASK(rates)[i], g_i / (root + eps));
}

// part[block] = the sum of a b over a block's share of the row: runs of TEAM numbers,
// gridDim.x of them apart.
extern "C" __global__ void vector_dot(OUTPUT(real, part), ARRAY(real, a), ARRAY(real, b), int P)
{
    real sum = 0;
    for (unsigned i = blockIdx.x * TEAM + threadIdx.x; i < P; i += gridDim.x * TEAM)
        sum += OF_TASK(a)[i] * OF_TASK(b)[i];
    sum = team_sum(sum);
    if (threadIdx.x == 0) OF_TASK(part)[blockIdx.x] = sum;
}

// total[i] += the rows of a, one after the other: the threads of one task read all T
// rows.
extern "C" __global__ void vector_add_rows(OUTPUT(real, total), ARRAY(real, a), int T, int P)
{
    int i = my_element();
    if (i >= P) return;
    real sum = total[i];
    for (int t = 0; t < T; t++) sum += a[t * a_step + i];
    OF_TASK(total)[i] = sum;
}

// out[i] = the sum of the parts of a result, one after the other.
extern "C" __global__ void vector_add_parts(OUTPUT(real, out), ARRAY(real, part), int count,
                                            int parts)
{
    int i = my_element();
    if (i >= count) return;
    real sum = OF_TASK(part)[i];
    for (int k = 1; k < parts; k++) sum += OF_TASK(part)[(long long)k * count + i];
    OF_TASK(out)[i] = sum;
}
