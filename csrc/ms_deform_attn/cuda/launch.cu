// The CUDA kernels of the plain operator.

#include "ms_deform_attn/cuda/launch.h"

#include "ms_deform_attn/cuda/dispatch.h"
#include "ms_deform_attn/cuda/plain_source.cuh"

namespace queryseg {
namespace {

struct MakePlainSource {
  PlainInputs inputs;
  PlainGrads grads;

  template <typename A>
  device::PlainSource<A> of() const {
    return {static_cast<const A*>(inputs.locations), static_cast<const A*>(inputs.weights),
            static_cast<A*>(grads.locations), static_cast<A*>(grads.weights)};
  }
};

}  // namespace

cudaError_t ms_deform_attn_forward_cuda(const ForwardArgs& args, cudaStream_t stream) {
  return launch_forward(args, MakePlainSource{std::get<PlainInputs>(args.points), {}}, stream);
}

cudaError_t ms_deform_attn_backward_cuda(const BackwardArgs& args, cudaStream_t stream) {
  return launch_backward(
      args, MakePlainSource{std::get<PlainInputs>(args.points), std::get<PlainGrads>(args.grads)},
      stream);
}

}  // namespace queryseg
