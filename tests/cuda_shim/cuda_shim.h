// CUDA on a CPU, as far as kernels/*/*.cu use it: test equipment. Compiled by g++ in
// front of the real kernel files.
//
// The threads of a block are fibers that take turns: each runs until it waits at
// __syncthreads() or ends. A launch chooses their order (Schedule below). Nothing else
// runs, so the order decides which of two racing threads is first: a kernel without
// races gives the same bits in every order. Shared memory is NaN (all bits set) when a
// block starts, so that a read before a write shows. A barrier that only some threads
// of a block reach is an error. AddressSanitizer checks every access. At an exchange
// between the lanes of a warp these wait for each other only; an exchange that only
// some lanes reach is an error.
//
// It cannot show races inside one instruction, the weak order of memory, or anything
// that needs several blocks at once. Shared arrays must be declared in functions that
// are not templates: in a template GCC drops their section, and they are not set to
// NaN.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// A section of its own, whose ends the linker marks: all of it is set to NaN before
// each block.
#define __shared__ static __attribute__((section("cuda_shared")))
extern unsigned char __start_cuda_shared[] __attribute__((weak)),
    __stop_cuda_shared[] __attribute__((weak));
// Shared memory whose size is an argument of the launch: a heap block of that size.
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(shim::room.data())

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {
enum Schedule { FORWARD, REVERSE, SHUFFLED };
enum Error { NONE, DIVERGENT_BARRIER, DIVERGENT_EXCHANGE };
enum State { READY, AT_BARRIER, AT_EXCHANGE, ENDED };
enum { STACK = 1 << 16, WARP_ = 32 };

struct Fiber {
    ucontext_t context;
    jmp_buf here;
    std::vector<char> stack = std::vector<char>(STACK);
    dim3 thread;
    bool under_way;
    State state;
};

static std::vector<Fiber> fibers;
static Fiber *running;
static ucontext_t scheduler;
static jmp_buf back;
static void (*body)(void *);
static void *arguments;
static std::vector<unsigned char> room;
static std::vector<uint64_t> lanes;  // the value that each thread passes to its warp

// From the scheduler to a fiber and back. The first entry needs swapcontext, a system
// call (half a microsecond); later entries jump. AddressSanitizer follows swapcontext
// only.
#ifdef __SANITIZE_ADDRESS__
static void yield() { swapcontext(&running->context, &scheduler); }
static void resume(Fiber &fiber) { swapcontext(&scheduler, &fiber.context); }
static void leave() {}
#else
static void yield()
{
    if (!_setjmp(running->here)) _longjmp(back, 1);
}
static void resume(Fiber &fiber)
{
    if (_setjmp(back)) return;
    if (fiber.under_way) _longjmp(fiber.here, 1);
    fiber.under_way = true;
    swapcontext(&scheduler, &fiber.context);
}
static void leave() { _longjmp(back, 1); }
#endif

static void wait(State state)
{
    running->state = state;
    yield();
}

static void run_body()
{
    body(arguments);
    running->state = ENDED;
    leave();
}

static void start(Fiber &fiber, dim3 thread)
{
    fiber.thread = thread;
    fiber.under_way = false;
    fiber.state = READY;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_body, 0);
}

// Byte by byte and volatile: memset would be checked against the red zones between
// arrays.
__attribute__((no_sanitize_address)) static void poison_shared_memory()
{
    for (volatile unsigned char *byte = __start_cuda_shared; byte < __stop_cuda_shared; byte++)
        *byte = 0xFF;
    for (unsigned char &byte : room) byte = 0xFF;
}

// The numbers 0 .. count-1 in the order of a schedule; a linear congruential generator
// shuffles.
static std::vector<int> in_order(int count, Schedule schedule)
{
    std::vector<int> order(count);
    for (int i = 0; i < count; i++) order[i] = schedule == REVERSE ? count - 1 - i : i;
    uint64_t state = 88172645463325252ull;
    for (int i = count - 1; schedule == SHUFFLED && i > 0; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[i], order[(state >> 33) % (i + 1)]);
    }
    return order;
}

static void run(Fiber &fiber)
{
    running = &fiber;
    threadIdx = fiber.thread;
    resume(fiber);
}

// Run a thread to the next barrier. At an exchange the rest of its warp is run to it,
// too.
static Error run_thread(unsigned i)
{
    unsigned first = i / WARP_ * WARP_, last = std::min(first + WARP_, blockDim.x);
    while (fibers[i].state == READY) {
        run(fibers[i]);
        if (fibers[i].state != AT_EXCHANGE) continue;
        for (unsigned j = first; j < last; j++) {
            if (fibers[j].state == READY) run(fibers[j]);
            if (fibers[j].state != AT_EXCHANGE) return DIVERGENT_EXCHANGE;
        }
        for (unsigned j = first; j < last; j++) fibers[j].state = READY;
    }
    return NONE;
}

// One block: from barrier to barrier, until all threads have ended.
static Error run_block(const std::vector<int> &order)
{
    poison_shared_memory();
    for (unsigned i = 0; i < blockDim.x; i++) start(fibers[i], {i, 0, 0});
    for (unsigned ended = 0; ended < blockDim.x;) {
        for (int i : order)
            if (Error error = run_thread(i)) return error;
        ended = std::count_if(fibers.begin(), fibers.begin() + blockDim.x,
                              [](const Fiber &fiber) { return fiber.state == ENDED; });
        if (ended && ended < blockDim.x) return DIVERGENT_BARRIER;
        for (unsigned i = 0; i < blockDim.x && !ended; i++) fibers[i].state = READY;
    }
    return NONE;
}

static Error run_grid(dim3 grid, unsigned threads, unsigned shared, Schedule schedule)
{
    room = std::vector<unsigned char>(shared);
    lanes.resize(threads);
    gridDim = grid;
    blockDim = {threads, 1, 1};
    if (fibers.size() < threads) fibers.resize(threads);
    std::vector<int> order = in_order(threads, schedule);
    for (unsigned b : in_order(grid.x * grid.y * grid.z, schedule)) {
        blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        if (Error error = run_block(order)) return error;
    }
    return NONE;
}

// A kernel with a pointer to each argument, as cuLaunchKernel takes them.
template <class... A>
struct Call {
    void (*kernel)(A...);
    void **at;
};

template <class... A, std::size_t... I>
void unpack(Call<A...> *call, std::index_sequence<I...>)
{
    call->kernel(*static_cast<A *>(call->at[I])...);
}

template <class... A>
Error launch(void (*kernel)(A...), void **at, dim3 grid, unsigned threads, unsigned shared,
             int schedule)
{
    Call<A...> call = {kernel, at};
    body = [](void *c) { unpack(static_cast<Call<A...> *>(c), std::index_sequence_for<A...>{}); };
    arguments = &call;
    return run_grid(grid, threads, shared, Schedule(schedule));
}
}  // namespace shim

static void __syncthreads() { shim::wait(shim::AT_BARRIER); }

template <class T>
static T __shfl_xor_sync(unsigned, T value, int mask)
{
    std::memcpy(&shim::lanes[threadIdx.x], &value, sizeof value);
    shim::wait(shim::AT_EXCHANGE);
    std::memcpy(&value, &shim::lanes[threadIdx.x ^ mask], sizeof value);
    shim::wait(shim::AT_EXCHANGE);
    return value;
}

#define EXPORT(kernel) \
    extern "C" int run_##kernel(void **arguments, unsigned x, unsigned y, unsigned z, \
                                unsigned threads, unsigned shared, int schedule) \
    { \
        return shim::launch(kernel, arguments, {x, y, z}, threads, shared, schedule); \
    }
