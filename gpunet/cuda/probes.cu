// What the clock and the roof need of a GPU: a kernel that only waits, and one that only multiplies and adds.
// launchers: gpunet/measure/events.py

#ifndef real
#error "probes.cu needs -D real=float or -D real=double"
#endif

// wait
//
//   thread     one alone, which looks at the clock until the time is over
//   needs      a grid of one block of one thread
//   writes     how often it looked
//   for        holding back a stream while the host hands it the launches that are to be timed
extern "C" __global__ void wait(long long* __restrict__ looks, long long nanoseconds) {
    long long count = 0;
#ifndef GPUNET_EMULATOR
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
        ++count;
    } while (now - begin < static_cast<unsigned long long>(nanoseconds));
#endif
    *looks = count;
}

// multiply_add
//
//   thread     16 independent chains x = x * a + b, rounds steps each: 32 flop a round
//   block      any number of threads
//   reads      nothing; writes one element a thread, so that nothing can be left out
//   for        the rate of multiplications and additions that no kernel can exceed
extern "C" __global__ void multiply_add(real* __restrict__ y, real a, real b, int rounds) {
    real x[16];
    int thread = blockIdx.x * blockDim.x + threadIdx.x;
#pragma unroll
    for (int k = 0; k < 16; ++k) x[k] = real(k) + real(thread % 7);
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int k = 0; k < 16; ++k) x[k] = x[k] * a + b;
    }
    real sum = 0;
#pragma unroll
    for (int k = 0; k < 16; ++k) sum += x[k];
    y[thread] = sum;
}
