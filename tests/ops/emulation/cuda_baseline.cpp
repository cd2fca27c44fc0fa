// The kernels of the benchmark's baseline as plain functions, for ctypes.

#include "cuda_emulation.h"
// The kernels come after the words they are written in.
#include "ms_deform_attn.cuh"

struct Call {
  baseline::Sizes sizes;
  const float* value;
  const long long* shapes;
  const long long* starts;
  const float* locations;
  const float* weights;
  float* output;
  const float* grad_output;
  float* grad_value;
  float* grad_locations;
  float* grad_weights;
};

extern "C" void forward_and_backward(const Call* call) {
  const baseline::Sizes& sizes = call->sizes;
  const auto rows = static_cast<unsigned int>(sizes.batch * sizes.queries * sizes.heads);
  emulation::launch((rows * 32 + 255) / 256, 256, [&] {
    baseline::forward(sizes, call->value, call->shapes, call->starts, call->locations,
                      call->weights, call->output);
  });
  emulation::launch(rows, 32, [&] {
    baseline::backward<32>(sizes, call->grad_output, call->value, call->shapes, call->starts,
                           call->locations, call->weights, call->grad_value, call->grad_locations,
                           call->grad_weights);
  });
}
