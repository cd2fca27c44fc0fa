// The CUDA kernels of ms_deform_attn_fused as plain functions, for ctypes.

#include "ms_deform_attn.h"

#include "ms_deform_attn/cuda/fused_source.cuh"

using namespace queryseg;
using namespace queryseg::device;

// Rows of offsets and logits lie `row` elements apart, images follow each other without a gap.
struct Call {
  const DeviceShape* shape;
  const void* value;
  const void* reference;
  const void* offsets;
  const void* logits;
  void* output;
  const void* grad_output;
  void* grad_value;
  void* grad_reference;
  void* grad_offsets;
  void* grad_logits;
  int64 reference_steps[4];
  int64 row;
  int reference_dim;
  int number;  // ValueType of offsets and logits

  template <typename A>
  FusedSource<A> source() const {
    const auto type = static_cast<ValueType>(number);
    const int64 image = shape->queries * row;
    const int64* steps = reference_steps;
    return {static_cast<const A*>(reference),
            {steps[0], steps[1], steps[2], steps[3]},
            reference_dim,
            {offsets, type, image, row},
            {logits, type, image, row},
            static_cast<A*>(grad_reference),
            grad_offsets,
            static_cast<A*>(grad_logits)};
  }
};

extern "C" void forward_and_backward(const Call* call, int type, int variant) {
  run_type(*call, type, variant);
}
