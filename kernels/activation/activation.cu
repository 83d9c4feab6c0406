// Elementwise activations, one thread for each number: see reference.py; functions.py
// has the formulas and their numbers.
enum { LEAKY, TANH, SOFTPLUS };

// 1 / (1 + e^-x), by the exponential that does not overflow.
__device__ __forceinline__ real sigmoid(real x)
{
    real e = exp(x > 0 ? -x : x);
    return (x > 0 ? 1 : e) / (1 + e);
}

__device__ __forceinline__ real f(real x, int kind, real slope)
{
    if (kind == TANH) return tanh(x);
    if (kind == SOFTPLUS) return (x > 0 ? x : x == x ? 0 : x) + log1p(exp(x > 0 ? -x : x));
    return !(x <= 0) ? x : slope == 0 ? 0 : slope * x;
}

__device__ __forceinline__ real df(real x, int kind, real slope)
{
    if (kind == TANH) return 1 - tanh(x) * tanh(x);
    if (kind == SOFTPLUS) return sigmoid(x);
    return x <= 0 ? slope : 1;
}

__device__ __forceinline__ real ddf(real x, int kind)
{
    if (kind == TANH) return -2 * tanh(x) * (1 - tanh(x) * tanh(x));
    if (kind == SOFTPLUS) return sigmoid(x) * sigmoid(-x);
    return 0;
}

extern "C" __global__ void activation_forward(OUTPUT(real, y), ARRAY(real, x), int count, int kind,
                                              real slope)
{
    int i = my_element();
    if (i < count) OF_TASK(y)[i] = f(OF_TASK(x)[i], kind, slope);
}

// dx = f'(x) dy, and ry = f'(x) rx.
extern "C" __global__ void activation_backward(OUTPUT(real, dx), ARRAY(real, dy), ARRAY(real, x),
                                               int count, int kind, real slope)
{
    int i = my_element();
    if (i < count) OF_TASK(dx)[i] = df(OF_TASK(x)[i], kind, slope) * OF_TASK(dy)[i];
}

// rdx = f'(x) rdy + f''(x) rx dy. The second term is left out where f'' is 0, as 0
// times infinity is not 0.
extern "C" __global__ void activation_r_backward(OUTPUT(real, rdx), ARRAY(real, dy),
                                                 ARRAY(real, rdy), ARRAY(real, x), ARRAY(real, rx),
                                                 int count, int kind, real slope)
{
    int i = my_element();
    if (i >= count) return;
    real x_i = OF_TASK(x)[i], rdx_i = df(x_i, kind, slope) * OF_TASK(rdy)[i];
    if (kind != LEAKY) rdx_i += ddf(x_i, kind) * OF_TASK(rx)[i] * OF_TASK(dy)[i];
    OF_TASK(rdx)[i] = rdx_i;
}
