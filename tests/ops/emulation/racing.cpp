// A kernel whose threads read what others write, with and without the barrier between.

#include "cuda_emulation.h"
// The kernels come after the words they are written in.

__global__ void turn(int* to, bool barrier) {
  __shared__ int shared[64];
  const unsigned int next = (threadIdx.x + 1) % 64, previous = (threadIdx.x + 63) % 64;
  shared[threadIdx.x] = -1;
  __syncthreads();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (barrier) {
    __syncthreads();
  }
  to[2 * threadIdx.x] = shared[next];
  to[2 * threadIdx.x + 1] = shared[previous];
}

// to: of each thread what the next and what the previous one wrote.
extern "C" void turn_around(int* to, bool barrier) {
  emulation::launch(1, 64, [&] { turn(to, barrier); });
}
