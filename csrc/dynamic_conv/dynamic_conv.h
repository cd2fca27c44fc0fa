// Per-instance dynamic convolution (Fang et al., "Instances as Queries", section 3.2; Sun et al.,
// "Sparse R-CNN", section 3.3): what the CPU and CUDA kernels agree on.
//
//   hidden[n] = ReLU(norm_in(x[n] @ W_in[n]))           x: (T, C), W_in: (C, d)
//   output[n] = ReLU(norm_out(hidden[n] @ W_out[n]))    W_out: (d, C)
//
// norm(v) = (v - mean) / sqrt(variance + eps) * weight + bias over the channels of a position.
#pragma once

#include <cstdint>

#include "common/value_type.h"

namespace queryseg {
namespace dynamic_conv {

// Letters as in the Python wrapper: N, T, C, d.
struct Shape {
  int64_t instances;
  int64_t positions;
  int64_t channels;
  int64_t inner;
  bool as_map;  // features are (N, C, T) instead of (N, T, C)

  int64_t instance_features() const { return positions * channels; }
  int64_t instance_weights() const { return 2 * channels * inner; }
  int64_t norm_values() const { return 2 * (channels + inner); }
};

struct Inputs {
  Shape shape;
  ValueType type;
  const void* features;
  const void* dynamic_weights;  // (N, 2 * C * d): W_in, then W_out
  // Of the compute type: double for double values, else float.
  const void* norm_in_weight;   // (d,)
  const void* norm_in_bias;     // (d,)
  const void* norm_out_weight;  // (C,)
  const void* norm_out_bias;    // (C,)
  double eps;
};

struct Forward {
  Inputs inputs;
  void* output;  // (N, T, C)
};

struct Backward {
  Inputs inputs;
  const void* grad_output;  // (N, T, C)
  void* grad_features;      // layout of the features
  void* grad_weights;       // (N, 2 * C * d)
  // (N, 2 * d + 2 * C), compute type: each instance's share of the gradients of the layer norms, in
  // the order of Inputs.
  void* norm_shares;
};

}  // namespace dynamic_conv
}  // namespace queryseg
