// Two limits of a device: the rates of its multiply-adds and of its memory.
// No headers; REAL is float or double.
typedef REAL real;

// A thread does CHAINS * STEPS fused multiply-adds in a round.
enum { CHAINS = 8, STEPS = 16 };

// y[i] = sum over chains c of x, where x starts as y[i] + c and is replaced by
// x factor + addend in each of rounds * STEPS steps. The chains of a thread are
// independent. With factor = -1, two steps restore x, so that no x overflows.
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

// A thread has AT_ONCE loads in flight, of BYTES bytes each.
enum { AT_ONCE = 4, BYTES = 16 };

struct alignas(BYTES) Piece { real of[BYTES / sizeof(real)]; };

// y = x. Each block copies AT_ONCE * blockDim.x of the `pieces` pieces of 16 bytes.
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
