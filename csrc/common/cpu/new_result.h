// Tensors that CPU kernels fill.
#pragma once

#include "common/cpu/huge_pages.h"
#include "common/tensor.h"

namespace queryseg {

// Not initialised. Results are tens of megabytes, and their first touch in small pages can take as
// long as the work itself.
inline Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  const Tensor result = torch::stable::new_empty(like, sizes);
  prefer_huge_pages(result.mutable_data_ptr(), result.numel() * result.element_size());
  return result;
}

}  // namespace queryseg
