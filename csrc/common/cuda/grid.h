// Host side of a launch, without torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <limits>

#include "common/cuda/device.h"

namespace queryseg {

// Blocks of device::kThreads threads that hold at least `threads` threads.
inline cudaError_t grid_for(int64_t threads, unsigned int* blocks) {
  const int64_t count = (threads + device::kThreads - 1) / device::kThreads;
  if (count > std::numeric_limits<int32_t>::max()) {
    return cudaErrorInvalidConfiguration;
  }
  *blocks = static_cast<unsigned int>(count);
  return cudaSuccess;
}

inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace queryseg
