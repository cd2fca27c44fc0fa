// The LibTorch stable ABI, and what every operator needs of it.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/value_type.h"

namespace queryseg {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ValueType value_type(const Tensor& values) {
  switch (values.scalar_type()) {
    case ScalarType::Float:
      return ValueType::kFloat;
    case ScalarType::Double:
      return ValueType::kDouble;
    case ScalarType::Half:
      return ValueType::kHalf;
    case ScalarType::BFloat16:
      return ValueType::kBFloat16;
    default:
      STD_TORCH_CHECK(false, "values must be float32, float64, float16 or bfloat16");
  }
}

// The type that values are accumulated in, and that locations and weights are given in.
inline ScalarType compute_type(const Tensor& values) {
  return values.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// "(2, 300, 8)", for messages.
inline std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(tensor.size(i));
  }
  return text + ")";
}

inline void check_shape(const Tensor& tensor, const char* name, const std::vector<int64_t>& sizes) {
  bool equal = tensor.dim() == static_cast<int64_t>(sizes.size());
  std::string expected = "(";
  for (size_t i = 0; i < sizes.size(); ++i) {
    equal = equal && tensor.size(static_cast<int64_t>(i)) == sizes[i];
    expected += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  }
  STD_TORCH_CHECK(equal, name, " must have shape ", expected, "), got ", shape_text(tensor));
}

inline void check_same_device(const Tensor& tensor, const char* name, const Tensor& reference,
                              const char* reference_name) {
  STD_TORCH_CHECK(tensor.is_cpu() == reference.is_cpu() &&
                      tensor.get_device_index() == reference.get_device_index(),
                  name, " must be on the device of ", reference_name);
}

}  // namespace queryseg
