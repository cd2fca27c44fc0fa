// From the operators' tensors to the kernels' arguments, with the checks that keep the kernels
// inside their arrays. The Python wrappers have the friendlier messages.
#pragma once

#include "common/tensor.h"
#include "ms_deform_attn/ms_deform_attn.h"

namespace queryseg {

inline std::vector<Level> levels_of(const std::vector<int64_t>& spatial_shapes, int64_t tokens) {
  STD_TORCH_CHECK(!spatial_shapes.empty() && spatial_shapes.size() % 2 == 0,
                  "spatial_shapes must hold (height, width) of at least one level");
  std::vector<Level> levels;
  int64_t start = 0;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    const int64_t height = spatial_shapes[i];
    const int64_t width = spatial_shapes[i + 1];
    constexpr int64_t kMost = int64_t{1} << 24;  // pixel coordinates are exact in float32
    STD_TORCH_CHECK(height > 0 && width > 0 && height <= kMost && width <= kMost,
                    "spatial_shapes must be positive and at most 2^24, got ", height, " x ", width);
    levels.push_back({start, static_cast<int32_t>(height), static_cast<int32_t>(width)});
    start += height * width;
    STD_TORCH_CHECK(start <= tokens, "spatial_shapes cover more than the ", tokens,
                    " tokens of value");
  }
  STD_TORCH_CHECK(start == tokens, "spatial_shapes cover ", start, " tokens, but value has ",
                  tokens);
  return levels;
}

// `points` is (B, Q, M, L, P, 2).
inline AttnShape shape_of(const Tensor& value, const std::vector<int64_t>& spatial_shapes,
                          const Tensor& points, const char* name) {
  STD_TORCH_CHECK(value.dim() == 4, "value must have shape (B, S, M, D), got ", shape_text(value));
  STD_TORCH_CHECK(points.dim() == 6, name, " must have shape (B, Q, M, L, P, 2), got ",
                  shape_text(points));
  AttnShape shape{value.size(0),
                  value.size(1),
                  value.size(2),
                  value.size(3),
                  points.size(1),
                  points.size(4),
                  {}};
  shape.levels = levels_of(spatial_shapes, shape.tokens);
  const auto levels = static_cast<int64_t>(shape.levels.size());
  STD_TORCH_CHECK(shape.points > 0, name, " must have at least one point per level");
  STD_TORCH_CHECK(shape.heads * shape.points_per_head() < (int64_t{1} << 24),
                  "more than 2^24 points per query");
  check_shape(points, name, {shape.batch, shape.queries, shape.heads, levels, shape.points, 2});
  check_same_device(points, name, value, "value");
  return shape;
}

// One number for every point: (B, Q, M, L, P).
inline void check_point_weights(const Tensor& weights, const char* name, const Tensor& value,
                                const AttnShape& shape) {
  check_shape(weights, name,
              {shape.batch, shape.queries, shape.heads, static_cast<int64_t>(shape.levels.size()),
               shape.points});
  check_same_device(weights, name, value, "value");
}

inline void check_compute_type(const Tensor& tensor, const char* name, const Tensor& value) {
  STD_TORCH_CHECK(tensor.scalar_type() == compute_type(value), name,
                  " must be float64 with a float64 value, else float32");
}

inline AttnShape plain_shape(const Tensor& value, const std::vector<int64_t>& spatial_shapes,
                             const Tensor& locations, const Tensor& weights) {
  const AttnShape shape = shape_of(value, spatial_shapes, locations, "sampling_locations");
  check_point_weights(weights, "attention_weights", value, shape);
  check_compute_type(locations, "sampling_locations", value);
  check_compute_type(weights, "attention_weights", value);
  return shape;
}

inline void check_grad_output(const Tensor& grad_output, const Tensor& value,
                              const AttnShape& shape) {
  check_shape(grad_output, "grad_output",
              {shape.batch, shape.queries, shape.heads * shape.channels});
  check_same_device(grad_output, "grad_output", value, "value");
  STD_TORCH_CHECK(grad_output.scalar_type() == value.scalar_type(),
                  "grad_output must have the dtype of value");
}

inline std::vector<int64_t> output_sizes(const AttnShape& shape) {
  return {shape.batch, shape.queries, shape.heads * shape.channels};
}

}  // namespace queryseg
