// The CUDA kernels of quadtree_gather as plain functions, for ctypes.

#include "cuda_emulation.h"
// The kernels come after the words they are written in.
#include "quadtree/cuda/kernels.cuh"

using namespace queryseg;
using namespace queryseg::device;

struct Call {
  int64 nodes, images, instances, levels, maps, channels;
  const void* windows;
  const int64* bins;
  const int64* index;
  const int64* level;
  const int64* sizes;  // height and width of each map
  void* const* pixels;
  void* const* grad_pixels;
  void* output;
  const void* grad_output;
};

template <typename T, typename A>
static NodeArgs<T, A> node_args(const Call& call, void* const* pixels) {
  NodeArgs<T, A> args{};
  args.nodes = call.nodes;
  args.images = call.images;
  args.instances = call.instances;
  args.levels = call.levels;
  args.maps = static_cast<int>(call.maps);
  args.channels = static_cast<int>(call.channels);
  args.windows = static_cast<const A*>(call.windows);
  args.bins = call.bins;
  args.index = call.index;
  args.level = call.level;
  for (int i = 0; i < args.maps; ++i) {
    args.map[i] = {static_cast<T*>(pixels[i]), static_cast<int>(call.sizes[2 * i]),
                   static_cast<int>(call.sizes[2 * i + 1])};
  }
  return args;
}

template <typename T, typename A, int N>
static void run(const Call& call) {
  const auto blocks = static_cast<unsigned int>((call.nodes * kWarp + kThreads - 1) / kThreads);
  emulation::launch(blocks, kThreads, [&] {
    gather_kernel<T, A, N>(node_args<const T, A>(call, call.pixels), static_cast<T*>(call.output));
  });
  const auto backward = [&](auto whole) {
    emulation::launch(blocks, kThreads, [&] {
      spread_kernel<T, A, N, decltype(whole)::value>(node_args<A, A>(call, call.grad_pixels),
                                                     static_cast<const T*>(call.grad_output));
    });
  };
  if (call.channels % (N * kWarp) == 0) {
    backward(std::true_type());
  } else {
    backward(std::false_type());
  }
}

template <typename T, typename A>
static void choose(const Call& call, int wide) {
  constexpr int kPack = 16 / sizeof(T);
  wide ? run<T, A, kPack>(call) : run<T, A, 1>(call);
}

extern "C" void forward_and_backward(const Call* call, int type, int wide) {
  switch (type) {
    case 0:
      return choose<float, float>(*call, wide);
    case 1:
      return choose<double, double>(*call, wide);
    case 2:
      return choose<half_t, float>(*call, wide);
    default:
      return choose<bfloat16_t, float>(*call, wide);
  }
}
