// The CUDA kernels of the fused operator.

#include "ms_deform_attn/cuda/dispatch.h"
#include "ms_deform_attn/cuda/fused_source.cuh"
#include "ms_deform_attn/cuda/launch.h"

namespace queryseg {
namespace {

device::DeviceRows device_rows(const QueryRows& rows) {
  return {rows.data, rows.type, rows.image_step, rows.query_step};
}

struct MakeFusedSource {
  FusedInputs inputs;
  FusedGrads grads;

  template <typename A>
  device::FusedSource<A> of() const {
    const int64_t* steps = inputs.reference_steps;
    return {static_cast<const A*>(inputs.reference),
            {steps[0], steps[1], steps[2], steps[3]},
            static_cast<int>(inputs.reference_dim),
            device_rows(inputs.offsets),
            device_rows(inputs.logits),
            static_cast<A*>(grads.reference),
            grads.offsets,
            static_cast<A*>(grads.logits)};
  }
};

}  // namespace

cudaError_t ms_deform_attn_fused_forward_cuda(const ForwardArgs& args, cudaStream_t stream) {
  return launch_forward(args, MakeFusedSource{std::get<FusedInputs>(args.points), {}}, stream);
}

cudaError_t ms_deform_attn_fused_backward_cuda(const BackwardArgs& args, cudaStream_t stream) {
  return launch_backward(
      args, MakeFusedSource{std::get<FusedInputs>(args.points), std::get<FusedGrads>(args.grads)},
      stream);
}

}  // namespace queryseg
