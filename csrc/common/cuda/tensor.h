// What the CUDA side of an operator needs of the stable ABI.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "common/tensor.h"

namespace queryseg {

using torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// A contiguous copy of the tensor, or itself, whose pairs of elements can be loaded at once.
inline Tensor contiguous_pairs(const Tensor& tensor) {
  const Tensor result = torch::stable::contiguous(tensor);
  const auto address = reinterpret_cast<uintptr_t>(result.const_data_ptr());
  return address % (2 * result.element_size()) == 0 ? result : torch::stable::clone(result);
}

}  // namespace queryseg
