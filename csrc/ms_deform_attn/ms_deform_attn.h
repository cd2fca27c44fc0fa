// Multi-scale deformable attention (Zhu et al., "Deformable DETR", eq. 3): what the CPU and CUDA
// kernels agree on.
//
//   output[b, q, m, :] = sum_{l, p} weight[b, q, m, l, p] * bilinear(value_l[b, :, m, :], point)
//
// A point outside the map contributes zero, corners outside the map count as zero, and the centre
// of pixel (row, column) lies at ((column + 0.5) / width, (row + 0.5) / height).
#pragma once

#include <cstdint>
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

// Where the sampling points and their weights come from. Elements are of the compute type: double
// for double values, float for every other value type.
struct PointInputs {
  const void* locations;  // (B, Q, M, L, P, 2)
  const void* weights;    // (B, Q, M, L, P)
};

struct PointGrads {
  void* locations;
  void* weights;
};

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
