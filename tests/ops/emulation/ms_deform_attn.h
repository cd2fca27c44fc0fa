// What the emulations of ms_deform_attn, plain and fused, have in common. A Call has the pointers
// of value, output and their gradients, the shape, and `source<A>()`, where its points come from.
#pragma once

#include <type_traits>

#include "cuda_emulation.h"
// The kernels come after the words they are written in.
#include "ms_deform_attn/cuda/kernels.cuh"

namespace queryseg {
namespace device {

template <typename T, typename A, int N, int kGroup, typename Call>
void run(const Call& call) {
  const auto source = call.template source<A>();
  const auto blocks =
      static_cast<unsigned int>((call.shape->rows * kGroup + kThreads - 1) / kThreads);
  const T* value = static_cast<const T*>(call.value);
  emulation::launch(blocks, kThreads, [&] {
    forward_kernel<T, A, N, kGroup>(*call.shape, source, value, static_cast<T*>(call.output));
  });
  const auto backward = [&](auto whole) {
    emulation::launch(blocks, kThreads, [&] {
      backward_kernel<T, A, N, kGroup, decltype(whole)::value>(
          *call.shape, source, value, static_cast<const T*>(call.grad_output),
          static_cast<A*>(call.grad_value));
    });
  };
  if (call.shape->channels % (N * kGroup) == 0) {
    backward(std::true_type());
  } else {
    backward(std::false_type());
  }
}

// variant: 0 one channel per lane, 1 and 2 vectors in groups of 4 and 8 lanes, 3 vectors of 8 bytes
// in groups of 8.
template <typename T, typename A, typename Call>
void choose(const Call& call, int variant) {
  constexpr int kPack = 16 / sizeof(T);
  if (variant == 0) {
    run<T, A, 1, 32>(call);
  } else if (variant == 1) {
    run<T, A, kPack, 4>(call);
  } else if (variant == 2) {
    run<T, A, kPack, 8>(call);
  } else {
    run<T, A, kPack / 2, 8>(call);
  }
}

template <typename Call>
void run_type(const Call& call, int type, int variant) {
  switch (type) {
    case 0:
      return choose<float, float>(call, variant);
    case 1:
      return choose<double, double>(call, variant);
    case 2:
      return choose<half_t, float>(call, variant);
    default:
      return choose<bfloat16_t, float>(call, variant);
  }
}

}  // namespace device
}  // namespace queryseg
