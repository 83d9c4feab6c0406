// What the kernels of every operation share; stands in front of each file when it is compiled. No headers: NVRTC needs none.
//
// REAL is float or double. An array is an address and the step from one task's numbers to the next (0: shared by all tasks); ARRAY and
// OUTPUT declare both, OF_TASK is the part of this block's task. All other extents are int: a task holds less than 2^31 numbers.
typedef REAL real;

#define OUTPUT(type, a) type *a, long long a##_step
#define ARRAY(type, a) const type *a, long long a##_step
#define OF_TASK(a) (a + blockIdx.z * a##_step)

enum { THREADS = 256, TEAM = 128 };

// The result that belongs to this thread.
__device__ __forceinline__ int my_element() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The sum of `value` over a block of TEAM threads, for all of them: a tree, in the same order at every launch.
__device__ real team_sum(real value)
{
    __shared__ real part[TEAM];
    int thread = threadIdx.x;
    part[thread] = value;
    __syncthreads();
    for (int half = TEAM / 2; half > 0; half /= 2) {
        if (thread < half) part[thread] += part[thread + half];
        __syncthreads();
    }
    real total = part[0];
    __syncthreads();                                    // before the next sum writes there
    return total;
}

// The values of one channel, among N images of C channels of L positions: number e of N L lies at channel_at(e, c, C, L).
__device__ __forceinline__ int channel_at(int e, int c, int C, int L) { return (e / L * C + c) * L + e % L; }
