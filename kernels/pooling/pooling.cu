// Pooling: see reference.py.
//
// One thread for each result. In the backward passes the thread of a pixel gathers from
// the windows that contain it, in order, so that no two threads write to one address.
//
// Winners are kept as short (int16) or int (int32, for windows of more than 32768
// pixels).
#define WINDOWS int NC, int H, int W, int Ho, int Wo, int kH, int kW, int sH, int sW

// The index in x of the first pixel of the window of result i = (image and channel,
// row, column).
__device__ __forceinline__ int window_at(int i, int H, int W, int Ho, int Wo, int sH, int sW)
{
    return (i / (Ho * Wo) * H + i / Wo % Ho * sH) * W + i % Wo * sW;
}

// y and the place p kW + q of the winner: the first of equals; NaN is larger than every
// number.
template <class Winner>
__device__ __forceinline__ void max_forward(real *y, Winner *winner, const real *x, WINDOWS)
{
    int i = my_element();
    if (i >= NC * Ho * Wo) return;
    const real *window = x + window_at(i, H, W, Ho, Wo, sH, sW);
    real best = window[0];
    int place = 0;
    for (int p = 0; p < kH; p++)
        for (int q = 0; q < kW; q++) {
            real value = window[p * W + q];
            bool better = value > best || (value != value && best == best);
            if (better) best = value, place = p * kW + q;
        }
    y[i] = best;
    winner[i] = place;
}

// ry = rx at the places of the winners.
template <class Winner>
__device__ __forceinline__ void max_gather(real *ry, const Winner *winner, const real *rx, WINDOWS)
{
    int i = my_element();
    if (i >= NC * Ho * Wo) return;
    int place = winner[i];
    ry[i] = rx[window_at(i, H, W, Ho, Wo, sH, sW) + place / kW * W + place % kW];
}

// The first and the last of the `count` windows along an axis that contain row (or
// column) h.
__device__ __forceinline__ int first_window(int h, int k, int s)
{
    return h < k ? 0 : (h - k) / s + 1;
}
__device__ __forceinline__ int last_window(int h, int s, int count)
{
    return h / s < count - 1 ? h / s : count - 1;
}

// dx = dy at the places of the winners, summed where windows overlap.
template <class Winner>
__device__ __forceinline__ void max_backward(real *dx, const Winner *winner, const real *dy,
                                             WINDOWS)
{
    int i = my_element(), h = i / W % H, w = i % W;
    if (i >= NC * H * W) return;
    real sum = 0;
    for (int a = first_window(h, kH, sH); a <= last_window(h, sH, Ho); a++)
        for (int b = first_window(w, kW, sW); b <= last_window(w, sW, Wo); b++) {
            int j = (i / (H * W) * Ho + a) * Wo + b;
            if (winner[j] == (h - a * sH) * kW + w - b * sW) sum += dy[j];
        }
    dx[i] = sum;
}

#define EXTENTS NC, H, W, Ho, Wo, kH, kW, sH, sW

extern "C" __global__ void max_pool2d_forward(OUTPUT(real, y), OUTPUT(short, winner),
                                              ARRAY(real, x), WINDOWS)
{
    max_forward(OF_TASK(y), OF_TASK(winner), OF_TASK(x), EXTENTS);
}

extern "C" __global__ void max_pool2d_forward_int32(OUTPUT(real, y), OUTPUT(int, winner),
                                                    ARRAY(real, x), WINDOWS)
{
    max_forward(OF_TASK(y), OF_TASK(winner), OF_TASK(x), EXTENTS);
}

extern "C" __global__ void max_pool2d_gather(OUTPUT(real, ry), ARRAY(short, winner),
                                             ARRAY(real, rx), WINDOWS)
{
    max_gather(OF_TASK(ry), OF_TASK(winner), OF_TASK(rx), EXTENTS);
}

extern "C" __global__ void max_pool2d_gather_int32(OUTPUT(real, ry), ARRAY(int, winner),
                                                   ARRAY(real, rx), WINDOWS)
{
    max_gather(OF_TASK(ry), OF_TASK(winner), OF_TASK(rx), EXTENTS);
}

extern "C" __global__ void max_pool2d_backward(OUTPUT(real, dx), ARRAY(short, winner),
                                               ARRAY(real, dy), WINDOWS)
{
    max_backward(OF_TASK(dx), OF_TASK(winner), OF_TASK(dy), EXTENTS);
}

extern "C" __global__ void max_pool2d_backward_int32(OUTPUT(real, dx), ARRAY(int, winner),
                                                     ARRAY(real, dy), WINDOWS)
{
    max_backward(OF_TASK(dx), OF_TASK(winner), OF_TASK(dy), EXTENTS);
}

// y = the mean of each window.
extern "C" __global__ void avg_pool2d_forward(OUTPUT(real, y), ARRAY(real, x), WINDOWS)
{
    int i = my_element();
    if (i >= NC * Ho * Wo) return;
    const real *window = OF_TASK(x) + window_at(i, H, W, Ho, Wo, sH, sW);
    real sum = 0;
    for (int p = 0; p < kH; p++)
        for (int q = 0; q < kW; q++) sum += window[p * W + q];
    OF_TASK(y)[i] = sum / (kH * kW);
}

// dx = each dy divided evenly among the pixels of its window.
extern "C" __global__ void avg_pool2d_backward(OUTPUT(real, dx), ARRAY(real, dy), WINDOWS)
{
    int i = my_element(), h = i / W % H, w = i % W;
    if (i >= NC * H * W) return;
    real sum = 0;
    for (int a = first_window(h, kH, sH); a <= last_window(h, sH, Ho); a++)
        for (int b = first_window(w, kW, sW); b <= last_window(w, sW, Wo); b++)
            sum += OF_TASK(dy)[(i / (H * W) * Ho + a) * Wo + b] / (kH * kW);
    OF_TASK(dx)[i] = sum;
}
