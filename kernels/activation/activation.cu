// Elementwise activations, one thread for each number: see reference.py. functions.py
// and smooth_functions.py have the formulas and their numbers.
enum { LEAKY, TANH, SOFTPLUS, SIGMOID, SILU, GELU, GELU_TANH, ELU };

// v of GELU_TANH is TANH_SLOPE (x + TANH_CUBE x^3).
#define TANH_SLOPE real(1.5957691216057308)    // sqrt(8 / pi)
#define TANH_CUBE real(0.044715)
#define SQRT_HALF real(0.7071067811865476)
#define DENSITY_AT_0 real(0.3989422804014327)  // 1 / sqrt(2 pi)

// 1 / (1 + e^-x), by the exponential that does not overflow.
__device__ __forceinline__ real sigmoid(real x)
{
    real e = exp(x > 0 ? -x : x);
    return (x > 0 ? 1 : e) / (1 + e);
}

// v of a gated function x sigmoid(v(x)), v' and v''.
__device__ __forceinline__ real gate(real x, int kind)
{
    return kind == SILU ? x : TANH_SLOPE * (x + TANH_CUBE * x * x * x);
}

__device__ __forceinline__ real d_gate(real x, int kind)
{
    return kind == SILU ? 1 : TANH_SLOPE * (1 + 3 * TANH_CUBE * x * x);
}

__device__ __forceinline__ real dd_gate(real x, int kind)
{
    return kind == SILU ? 0 : 6 * TANH_SLOPE * TANH_CUBE * x;
}

// The distribution function and the density of N(0, 1).
__device__ __forceinline__ real normal_cdf(real x) { return erfc(-SQRT_HALF * x) / 2; }

__device__ __forceinline__ real normal_density(real x) { return DENSITY_AT_0 * exp(-x * x / 2); }

__device__ __forceinline__ real f(real x, int kind, real slope)
{
    if (kind == TANH) return tanh(x);
    if (kind == SOFTPLUS) return (x > 0 ? x : x == x ? 0 : x) + log1p(exp(x > 0 ? -x : x));
    if (kind == SIGMOID) return sigmoid(x);
    if (kind == ELU) return x <= 0 ? slope * expm1(x) : x;
    if (kind == GELU) return x * normal_cdf(x);
    if (kind == SILU || kind == GELU_TANH) return x * sigmoid(gate(x, kind));
    return !(x <= 0) ? x : slope == 0 ? 0 : slope * x;
}

__device__ __forceinline__ real df(real x, int kind, real slope)
{
    if (kind == TANH) return 1 - tanh(x) * tanh(x);
    if (kind == SOFTPLUS) return sigmoid(x);
    if (kind == SIGMOID) return sigmoid(x) * sigmoid(-x);
    if (kind == ELU) return x <= 0 ? slope * exp(x) : 1;
    if (kind == GELU) return normal_cdf(x) + x * normal_density(x);
    if (kind == SILU || kind == GELU_TANH) {
        real v = gate(x, kind);
        return sigmoid(v) + x * (sigmoid(v) * sigmoid(-v) * d_gate(x, kind));
    }
    return x <= 0 ? slope : 1;
}

__device__ __forceinline__ real ddf(real x, int kind, real slope)
{
    if (kind == TANH) return -2 * tanh(x) * (1 - tanh(x) * tanh(x));
    if (kind == SOFTPLUS) return sigmoid(x) * sigmoid(-x);
    if (kind == SIGMOID) return sigmoid(x) * sigmoid(-x) * (sigmoid(-x) - sigmoid(x));
    if (kind == ELU) return x <= 0 ? slope * exp(x) : 0;
    if (kind == GELU) return (2 - x * x) * normal_density(x);
    if (kind == SILU || kind == GELU_TANH) {
        real v = gate(x, kind), dv = d_gate(x, kind), s = sigmoid(v), opposite = sigmoid(-v);
        return s * opposite * (2 * dv + x * (dd_gate(x, kind) + (opposite - s) * dv * dv));
    }
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
    if (kind != LEAKY) rdx_i += ddf(x_i, kind, slope) * OF_TASK(rx)[i] * OF_TASK(dy)[i];
    OF_TASK(rdx)[i] = rdx_i;
}
