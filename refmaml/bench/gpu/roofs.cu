// The two limits of a device, measured: how fast it multiplies and adds, and how fast it moves memory. No headers, REAL is float or double.
typedef REAL real;

enum { CHAINS = 8, STEPS = 16 };                        // fused multiply-adds of a thread in a round: CHAINS * STEPS

// y[i] = the sum over chains c of what x -> x factor + addend makes of y[i] + c, after rounds * STEPS steps. The chains of a thread do not
// wait for each other; with factor = -1 the numbers stay what they were, in turns, so that they can be any.
extern "C" __global__ void multiply_add(real *y, real factor, real addend, int rounds)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    real x[CHAINS];
#pragma unroll
    for (int c = 0; c < CHAINS; c++) x[c] = y[i] + c;
    for (int r = 0; r < rounds; r++)
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int c = 0; c < CHAINS; c++) x[c] = x[c] * factor + addend;
    real sum = 0;
#pragma unroll
    for (int c = 0; c < CHAINS; c++) sum += x[c];
    y[i] = sum;
}

enum { AT_ONCE = 4, BYTES = 16 };                       // loads of a thread in flight, and the bytes of each

struct alignas(BYTES) Piece { real of[BYTES / sizeof(real)]; };

// y = x: each block copies AT_ONCE * blockDim.x pieces of 16 bytes. pieces: how many there are.
extern "C" __global__ void copy(Piece *y, const Piece *x, int pieces)
{
    int first = blockIdx.x * blockDim.x * AT_ONCE + threadIdx.x;
    Piece kept[AT_ONCE];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++)
        if (first + k * int(blockDim.x) < pieces) kept[k] = x[first + k * blockDim.x];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++)
        if (first + k * int(blockDim.x) < pieces) y[first + k * blockDim.x] = kept[k];
}
