// Squared error: see reference.py.

// loss = scale sum e^2 and e = z - target, for the `count` numbers of a task: one team.
extern "C" __global__ void squared_error_forward(OUTPUT(real, loss), OUTPUT(real, e),
                                                 ARRAY(real, z), ARRAY(real, target), int count,
                                                 real scale)
{
    real sum = 0;
    for (int i = threadIdx.x; i < count; i += TEAM) {
        real error = OF_TASK(z)[i] - OF_TASK(target)[i];
        OF_TASK(e)[i] = error;
        sum += error * error;
    }
    sum = team_sum(sum);
    if (threadIdx.x == 0) OF_TASK(loss)[0] = scale * sum;
}

// dz = 2 scale e, and rdz = 2 scale rz: one thread for each number. dz may be e.
extern "C" __global__ void squared_error_backward(OUTPUT(real, dz), ARRAY(real, e), int count,
                                                  real scale)
{
    int i = my_element();
    if (i < count) OF_TASK(dz)[i] = 2 * scale * OF_TASK(e)[i];
}
