// Chooses and launches the kernels, whatever the source of the points. For nvcc.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "common/cuda/grid.h"
#include "ms_deform_attn/cuda/kernels.cuh"
#include "ms_deform_attn/ms_deform_attn.h"

namespace queryseg {

inline device::DeviceShape device_shape(const AttnShape& shape) {
  device::DeviceShape result{};
  result.rows = shape.batch * shape.queries * shape.heads;
  result.tokens = shape.tokens;
  result.queries = shape.queries;
  result.heads = static_cast<int>(shape.heads);
  result.channels = static_cast<int>(shape.channels);
  result.levels = static_cast<int>(shape.levels.size());
  result.points = static_cast<int>(shape.points);
  for (int i = 0; i < result.levels; ++i) {
    const Level& level = shape.levels[i];
    result.level[i] = {static_cast<int>(level.start), level.height, level.width};
  }
  return result;
}

// `MakeSource::of<A>()` is the source of the points, with elements of the compute type A.
template <typename MakeSource>
struct Forward {
  static constexpr bool kAddsAtomically = false;
  const ForwardArgs& args;
  MakeSource make_source;
  cudaStream_t stream;

  template <typename T, typename A, int N, int kGroup>
  cudaError_t run() const {
    const device::DeviceShape shape = device_shape(args.shape);
    unsigned int blocks = 0;
    const cudaError_t error = grid_for(shape.rows * kGroup, &blocks);
    if (error == cudaSuccess) {
      device::forward_kernel<T, A, N, kGroup><<<blocks, device::kThreads, 0, stream>>>(
          shape, make_source.template of<A>(), static_cast<const T*>(args.value),
          static_cast<T*>(args.output));
    }
    return error == cudaSuccess ? cudaGetLastError() : error;
  }
};

template <typename MakeSource>
struct Backward {
  static constexpr bool kAddsAtomically = true;
  template <typename A>
  using Source = decltype(std::declval<MakeSource>().template of<A>());

  const BackwardArgs& args;
  MakeSource make_source;
  cudaStream_t stream;

  template <typename T, typename A, int N, int kGroup>
  cudaError_t run() const {
    const device::DeviceShape shape = device_shape(args.shape);
    unsigned int blocks = 0;
    const cudaError_t error = grid_for(shape.rows * kGroup, &blocks);
    if (error == cudaSuccess) {
      const auto kernel = shape.channels % (N * kGroup) == 0
                              ? device::backward_kernel<T, A, N, kGroup, true, Source<A>>
                              : device::backward_kernel<T, A, N, kGroup, false, Source<A>>;
      kernel<<<blocks, device::kThreads, 0, stream>>>(
          shape, make_source.template of<A>(), static_cast<const T*>(args.value),
          static_cast<const T*>(args.grad_output), static_cast<A*>(args.grad_value));
    }
    return error == cudaSuccess ? cudaGetLastError() : error;
  }
};

// The widest loads that the channels and addresses allow, in groups that waste few lanes.
template <typename T, typename A, typename Launch>
cudaError_t choose_kernel(const Launch& launch, bool aligned) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t channels = launch.args.shape.channels;
  if (!aligned || channels % kPack != 0) {
    return launch.template run<T, A, 1, 32>();
  }
  if (channels > 4 * kPack) {
    return launch.template run<T, A, kPack, 8>();
  }
  // Eight lanes add to whole sectors of the cache, four to halves.
  constexpr bool kHalve = Launch::kAddsAtomically && kPack == 8;
  return launch.template run<T, A, kHalve ? 4 : kPack, kHalve ? 8 : 4>();
}

template <typename Launch>
cudaError_t dispatch(const Launch& launch, bool aligned) {
  switch (launch.args.type) {
    case ValueType::kFloat:
      return choose_kernel<float, float>(launch, aligned);
    case ValueType::kDouble:
      return choose_kernel<double, double>(launch, aligned);
    case ValueType::kHalf:
      return choose_kernel<half_t, float>(launch, aligned);
    default:
      return choose_kernel<bfloat16_t, float>(launch, aligned);
  }
}

template <typename MakeSource>
cudaError_t launch_forward(const ForwardArgs& args, MakeSource make_source, cudaStream_t stream) {
  return dispatch(Forward<MakeSource>{args, make_source, stream},
                  aligned(args.value, 16) && aligned(args.output, 16));
}

template <typename MakeSource>
cudaError_t launch_backward(const BackwardArgs& args, MakeSource make_source, cudaStream_t stream) {
  return dispatch(Backward<MakeSource>{args, make_source, stream},
                  aligned(args.value, 16) && aligned(args.grad_output, 16));
}

}  // namespace queryseg
