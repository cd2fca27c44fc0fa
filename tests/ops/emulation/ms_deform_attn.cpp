// The CUDA kernels of ms_deform_attn as plain functions, for ctypes.

#include "ms_deform_attn.h"

#include "ms_deform_attn/cuda/plain_source.cuh"

using namespace queryseg;
using namespace queryseg::device;

struct Call {
  const DeviceShape* shape;
  const void* value;
  const void* locations;
  const void* weights;
  void* output;
  const void* grad_output;
  void* grad_value;
  void* grad_locations;
  void* grad_weights;

  template <typename A>
  PlainSource<A> source() const {
    return {static_cast<const A*>(locations), static_cast<const A*>(weights),
            static_cast<A*>(grad_locations), static_cast<A*>(grad_weights)};
  }
};

extern "C" void forward_and_backward(const Call* call, int type, int variant) {
  run_type(*call, type, variant);
}
