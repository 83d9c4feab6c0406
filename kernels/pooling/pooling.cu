// Pooling: see reference.py. A thread for each result; backwards it gathers from the windows that hold its pixel, in their order, so that
// no two threads ever write to one place.
#define WINDOWS int NC, int H, int W, int Ho, int Wo, int kH, int kW, int sH, int sW

// Where the window of result i = (image and channel, row, column) begins in x.
__device__ __forceinline__ int window_at(int i, int H, int W, int Ho, int Wo, int sH, int sW)
{
    return (i / (Ho * Wo) * H + i / Wo % Ho * sH) * W + i % Wo * sW;
}

// y and the place p kW + q of the winner: the first of equals; NaN wins over everything.
extern "C" __global__ void max_pool2d_forward(OUTPUT(real, y), OUTPUT(short, winner), ARRAY(real, x), WINDOWS)
{
    int i = my_element();
    if (i >= NC * Ho * Wo) return;
    const real *window = OF_TASK(x) + window_at(i, H, W, Ho, Wo, sH, sW);
    real best = window[0];
    int place = 0;
    for (int p = 0; p < kH; p++)
        for (int q = 0; q < kW; q++) {
            real value = window[p * W + q];
            if (value > best || (value != value && best == best)) best = value, place = p * kW + q;
        }
    OF_TASK(y)[i] = best;
    OF_TASK(winner)[i] = place;
}

// ry = rx at the winners' places.
extern "C" __global__ void max_pool2d_gather(OUTPUT(real, ry), ARRAY(short, winner), ARRAY(real, rx), WINDOWS)
{
    int i = my_element();
    if (i >= NC * Ho * Wo) return;
    int place = OF_TASK(winner)[i];
    OF_TASK(ry)[i] = OF_TASK(rx)[window_at(i, H, W, Ho, Wo, sH, sW) + place / kW * W + place % kW];
}

// The windows that hold row (or column) h at some place: their first and last number, of `count` in all.
__device__ __forceinline__ int first_window(int h, int k, int s) { return h < k ? 0 : (h - k) / s + 1; }
__device__ __forceinline__ int last_window(int h, int s, int count) { return h / s < count - 1 ? h / s : count - 1; }

// dx = dy at the winners' places, summed where windows overlap.
extern "C" __global__ void max_pool2d_backward(OUTPUT(real, dx), ARRAY(short, winner), ARRAY(real, dy), WINDOWS)
{
    int i = my_element(), h = i / W % H, w = i % W;
    if (i >= NC * H * W) return;
    real sum = 0;
    for (int a = first_window(h, kH, sH); a <= last_window(h, sH, Ho); a++)
        for (int b = first_window(w, kW, sW); b <= last_window(w, sW, Wo); b++) {
            int j = (i / (H * W) * Ho + a) * Wo + b;
            if (OF_TASK(winner)[j] == (h - a * sH) * kW + w - b * sW) sum += OF_TASK(dy)[j];
        }
    OF_TASK(dx)[i] = sum;
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

// dx = each dy spread evenly over its window.
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
