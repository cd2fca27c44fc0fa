// The plain and the fused operator have the same limits on a GPU.
#pragma once

#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda/launch.h"

namespace queryseg {

inline void check_cuda_limits(const AttnShape& shape) {
  STD_TORCH_CHECK(static_cast<int64_t>(shape.levels.size()) <= kMostLevelsOnCuda, "at most ",
                  kMostLevelsOnCuda, " levels on CUDA, got ", shape.levels.size());
  STD_TORCH_CHECK(shape.tokens < (int64_t{1} << 31) && shape.heads < (int64_t{1} << 31) &&
                      shape.channels < (int64_t{1} << 31),
                  "a dimension of value is 2^31 or more");
}

}  // namespace queryseg
