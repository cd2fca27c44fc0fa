// Multi-scale deformable attention (Zhu et al., "Deformable DETR", eq. 3): what the CPU and CUDA
// kernels agree on.
//
//   output[b, q, m, :] = sum_{l, p} weight[b, q, m, l, p] * bilinear(value_l[b, :, m, :], point)
//
// A point outside the map contributes zero, corners outside the map count as zero, and the centre
// of pixel (row, column) lies at ((column + 0.5) / width, (row + 0.5) / height).
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "common/value_type.h"

namespace queryseg {

struct Level {
  int64_t start;  // first token of the level
  int32_t height;
  int32_t width;
};

// Letters as in the Python wrapper: B, S, M, D, Q, L, P.
struct AttnShape {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t channels;
  int64_t queries;
  int64_t points;  // per level
  std::vector<Level> levels;

  int64_t points_per_head() const { return static_cast<int64_t>(levels.size()) * points; }
};

// The plain op: normalised locations and weights. Elements are of the compute type: double for
// double values, float for every other value type.
struct PlainInputs {
  const void* locations;  // (B, Q, M, L, P, 2)
  const void* weights;    // (B, Q, M, L, P)
};

struct PlainGrads {
  void* locations;
  void* weights;
};

// What a linear layer puts out for every query: contiguous but for the steps between the images and
// between the queries.
struct QueryRows {
  const void* data;
  ValueType type;
  int64_t image_step;
  int64_t query_step;
};

// The fused op: location = reference + offset * scale, weights = softmax of the logits over the
// levels and points. The scale is 1 / (width, height) of the level, or half of the reference box
// over P.
struct FusedInputs {
  const void* reference;  // (B, Q, L, K) of the compute type: x, y, and with K = 4 w, h
  int64_t reference_steps[4];
  int64_t reference_dim;  // K
  QueryRows offsets;      // (B, Q, M, L, P, 2)
  QueryRows logits;       // (B, Q, M, L, P)
};

// Contiguous. Which kernels fill the gradients of the reference and the logits how differs between
// the CPU and CUDA.
struct FusedGrads {
  void* reference;  // null where nobody asks for it
  void* offsets;    // type of the offsets
  void* logits;
};

using PointInputs = std::variant<PlainInputs, FusedInputs>;
using PointGrads = std::variant<PlainGrads, FusedGrads>;

struct ForwardArgs {
  AttnShape shape;
  ValueType type;
  const void* value;  // (B, S, M, D)
  PointInputs points;
  void* output;  // (B, Q, M, D)
};

struct BackwardArgs {
  AttnShape shape;
  ValueType type;
  const void* value;
  const void* grad_output;  // (B, Q, M, D), value type
  PointInputs points;
  PointGrads grads;
  void* grad_value;  // (B, S, M, D), value type
};

}  // namespace queryseg
