// A number per channel: see reference.py.

// y[n,c,l] += b[c], one thread for each number.
extern "C" __global__ void bias_forward(OUTPUT(real, y), ARRAY(real, b), int N, int C, int L)
{
    int i = my_element();
    if (i < N * C * L) OF_TASK(y)[i] += OF_TASK(b)[i / L % C];
}

// db[c] = sum_{n,l} dy[n,c,l], one team for each channel.
extern "C" __global__ void bias_backward(OUTPUT(real, db), ARRAY(real, dy), int N, int C, int L)
{
    int c = blockIdx.x;
    real sum = 0;
    for (int e = threadIdx.x; e < N * L; e += TEAM) sum += OF_TASK(dy)[channel_at(e, c, C, L)];
    sum = team_sum(sum);
    if (threadIdx.x == 0) OF_TASK(db)[c] = sum;
}
