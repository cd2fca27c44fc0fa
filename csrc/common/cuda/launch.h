// Host side of a CUDA launch on the stable ABI.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <cstdint>
#include <limits>

#include "common/tensor.h"

namespace queryseg {

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline unsigned int block_count(int64_t threads, int threads_per_block) {
  const int64_t blocks = (threads + threads_per_block - 1) / threads_per_block;
  STD_TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max(),
                  "too many elements for one launch");
  return static_cast<unsigned int>(blocks);
}

inline bool aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// A contiguous tensor whose pairs of elements can be loaded at once.
inline Tensor aligned_pairs(const Tensor& tensor) {
  return aligned(tensor.const_data_ptr(), 2 * tensor.element_size()) ? tensor
                                                                     : torch::stable::clone(tensor);
}

}  // namespace queryseg
