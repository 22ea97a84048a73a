// The gradient of sigmoid, for own_kernel_cupy_file.py: gx = gy * y * (1 - y).
// real is float or double by -D; pointers carry const and __restrict__, so that launches can be checked.

extern "C" __global__ void sigmoid_grad_x_mine(real* __restrict__ gx, const real* __restrict__ gy,
                                               const real* __restrict__ y, int size) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)  // any grid covers any size
        gx[i] = gy[i] * (y[i] * (1 - y[i]));
}
