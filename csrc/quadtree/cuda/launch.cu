// Chooses and launches the CUDA kernels of sparse RoIAlign.

#include "quadtree/cuda/launch.h"

#include "common/cuda/grid.h"
#include "quadtree/cuda/kernels.cuh"

namespace queryseg {
namespace {

using quadtree::BackwardArgs;
using quadtree::ForwardArgs;
using quadtree::GatherShape;

static_assert(kMostMapsOnCuda == device::kMaxMaps);
static_assert(sizeof(device::int64) == sizeof(int64_t));

template <typename T, typename A, typename Pointers>
device::NodeArgs<T, A> node_args(const GatherShape& shape, const quadtree::NodeInputs& nodes,
                                 const Pointers& maps) {
  device::NodeArgs<T, A> result{};
  result.nodes = shape.nodes;
  result.images = shape.images;
  result.instances = shape.instances;
  result.levels = shape.levels;
  result.maps = static_cast<int>(shape.maps.size());
  result.channels = static_cast<int>(shape.channels);
  result.windows = static_cast<const A*>(nodes.windows);
  result.bins = reinterpret_cast<const device::int64*>(nodes.bins);
  result.index = reinterpret_cast<const device::int64*>(nodes.index);
  result.level = reinterpret_cast<const device::int64*>(nodes.level);
  for (int i = 0; i < result.maps; ++i) {
    result.map[i] = {static_cast<T*>(maps[i]), static_cast<int>(shape.maps[i].height),
                     static_cast<int>(shape.maps[i].width)};
  }
  return result;
}

struct Forward {
  const ForwardArgs& args;
  cudaStream_t stream;

  template <typename T, typename A, int N>
  cudaError_t run(unsigned int blocks) const {
    device::gather_kernel<T, A, N><<<blocks, device::kThreads, 0, stream>>>(
        node_args<const T, A>(args.shape, args.nodes, args.maps), static_cast<T*>(args.output));
    return cudaGetLastError();
  }
};

struct Backward {
  const BackwardArgs& args;
  cudaStream_t stream;

  template <typename T, typename A, int N>
  cudaError_t run(unsigned int blocks) const {
    const auto kernel = args.shape.channels % (N * device::kWarp) == 0
                            ? device::spread_kernel<T, A, N, true>
                            : device::spread_kernel<T, A, N, false>;
    kernel<<<blocks, device::kThreads, 0, stream>>>(
        node_args<A, A>(args.shape, args.nodes, args.grad_maps),
        static_cast<const T*>(args.grad_output));
    return cudaGetLastError();
  }
};

template <typename T, typename A, typename Launch>
cudaError_t choose_kernel(const Launch& launch, bool wide) {
  constexpr int kPack = 16 / sizeof(T);
  unsigned int blocks = 0;
  const cudaError_t error = grid_for(launch.args.shape.nodes * device::kWarp, &blocks);
  if (error != cudaSuccess) {
    return error;
  }
  return wide && launch.args.shape.channels % kPack == 0 ? launch.template run<T, A, kPack>(blocks)
                                                         : launch.template run<T, A, 1>(blocks);
}

// `wide`: every array begins at a multiple of 16 bytes.
template <typename Launch>
cudaError_t dispatch(const Launch& launch, bool wide) {
  switch (launch.args.type) {
    case ValueType::kFloat:
      return choose_kernel<float, float>(launch, wide);
    case ValueType::kDouble:
      return choose_kernel<double, double>(launch, wide);
    case ValueType::kHalf:
      return choose_kernel<half_t, float>(launch, wide);
    default:
      return choose_kernel<bfloat16_t, float>(launch, wide);
  }
}

}  // namespace

cudaError_t quadtree_gather_cuda(const ForwardArgs& args, cudaStream_t stream) {
  bool wide = aligned(args.output, 16);
  for (const void* map : args.maps) {
    wide = wide && aligned(map, 16);
  }
  return dispatch(Forward{args, stream}, wide);
}

cudaError_t quadtree_gather_backward_cuda(const BackwardArgs& args, cudaStream_t stream) {
  return dispatch(Backward{args, stream}, aligned(args.grad_output, 16));
}

}  // namespace queryseg
