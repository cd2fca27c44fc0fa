// The fused operator's tensors, checked and brought into the layout that the kernels read.
#pragma once

#include "ms_deform_attn/arguments.h"

namespace queryseg {

// Whether only the steps between images and between queries differ from those of a packed tensor.
inline bool rows_are_packed(const Tensor& tensor) {
  int64_t step = 1;
  for (int64_t i = tensor.dim() - 1; i >= 2; --i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != step) {
      return false;
    }
    step *= tensor.size(i);
  }
  return true;
}

inline QueryRows query_rows(const Tensor& tensor) {
  return {tensor.const_data_ptr(), value_type(tensor), tensor.stride(0), tensor.stride(1)};
}

// The tensors of a call, which keep the arrays alive, and what the kernels get of them.
struct FusedTensors {
  AttnShape shape;
  Tensor reference;
  Tensor offsets;
  Tensor logits;

  FusedTensors(const Tensor& value, const std::vector<int64_t>& spatial_shapes,
               const Tensor& reference_points, const Tensor& sampling_offsets,
               const Tensor& attention_logits)
      : shape(shape_of(value, spatial_shapes, sampling_offsets, "sampling_offsets")),
        reference(reference_points),
        offsets(packed(sampling_offsets, "sampling_offsets", value)),
        logits(packed(attention_logits, "attention_logits", value)) {
    check_point_weights(attention_logits, "attention_logits", value, shape);
    STD_TORCH_CHECK(reference.dim() == 4 && (reference.size(3) == 2 || reference.size(3) == 4),
                    "reference_points must have shape (B, Q, L, 2 or 4), got ",
                    shape_text(reference));
    check_shape(
        reference, "reference_points",
        {shape.batch, shape.queries, static_cast<int64_t>(shape.levels.size()), reference.size(3)});
    check_same_device(reference, "reference_points", value, "value");
    check_compute_type(reference, "reference_points", value);
  }

  FusedInputs inputs() const {
    return {reference.const_data_ptr(),
            {reference.stride(0), reference.stride(1), reference.stride(2), reference.stride(3)},
            reference.size(3),
            query_rows(offsets),
            query_rows(logits)};
  }

 private:
  static Tensor packed(const Tensor& tensor, const char* name, const Tensor& value) {
    const bool wide = value_type(tensor) == ValueType::kDouble;
    STD_TORCH_CHECK(wide == (value.scalar_type() == ScalarType::Double), name,
                    " must be float64 with a float64 value, else float32, float16 or bfloat16");
    return rows_are_packed(tensor) ? tensor : torch::stable::contiguous(tensor);
  }
};

}  // namespace queryseg
