// The CUDA kernels of dynamic_conv as plain functions, for ctypes.

#include "cuda_emulation.h"
// Blocks run one after the other, so that they can share one array.
alignas(16) static unsigned char shared_memory[65536];
#define QUERYSEG_DYNAMIC_SHARED(name) unsigned char* name = shared_memory
// The kernels come after the words they are written in.
#include "dynamic_conv/cuda/kernels.cuh"

using namespace queryseg;
using namespace queryseg::device;

struct Call {
  long long instances, positions, channels, inner, rows, as_map;
  double eps;
  const void* features;
  const void* dynamic_weights;
  const void* norms[4];
  const void* grad_output;
  void* output;
  void* grad_features;
  void* grad_weights;
  void* norm_shares;
};

template <typename A>
static ConvDims dims_for(const Call& call, bool backward) {
  if (conv_shared_bytes<A>(call.rows, call.channels, call.inner, backward) >
      static_cast<int64>(sizeof(shared_memory))) {
    emulation::fail("more shared memory than a block has");
  }
  return {call.instances,
          static_cast<int>(call.positions),
          static_cast<int>(call.channels),
          static_cast<int>(call.inner),
          static_cast<int>(call.rows),
          static_cast<int>((call.positions + call.rows - 1) / call.rows),
          call.as_map != 0};
}

template <typename T, typename A>
static void run(const Call& call) {
  const ConvInputs<T, A> inputs{static_cast<const T*>(call.features),
                                static_cast<const T*>(call.dynamic_weights),
                                static_cast<const A*>(call.norms[0]),
                                static_cast<const A*>(call.norms[1]),
                                static_cast<const A*>(call.norms[2]),
                                static_cast<const A*>(call.norms[3]),
                                static_cast<A>(call.eps)};
  const ConvDims dims = dims_for<A>(call, true);
  const auto blocks = static_cast<unsigned int>(dims.instances * dims.tiles);
  emulation::launch(blocks, kConvThreads,
                    [&] { conv_forward_kernel<T, A>(dims, inputs, static_cast<T*>(call.output)); });
  const int64 positions = dims.instances * dims.positions;
  std::vector<A> hidden(positions * dims.inner), grad_inner(positions * dims.inner);
  std::vector<A> grad_outer(positions * dims.channels);
  std::vector<A> shares(blocks * 2 * (dims.inner + dims.channels));
  const ConvScratch<A> scratch{hidden.data(), grad_inner.data(), grad_outer.data(), shares.data()};
  emulation::launch(blocks, kConvThreads, [&] {
    conv_backward_kernel<T, A>(dims, inputs, static_cast<const T*>(call.grad_output),
                               static_cast<T*>(call.grad_features), scratch);
  });
  emulation::launch(2 * static_cast<unsigned int>(dims.instances), kConvThreads, [&] {
    conv_weights_kernel<T, A>(dims, inputs.features, scratch, static_cast<T*>(call.grad_weights));
  });
  emulation::launch(static_cast<unsigned int>(dims.instances), kConvThreads, [&] {
    conv_norms_kernel<A>(dims, scratch.shares, static_cast<A*>(call.norm_shares));
  });
}

// type: 0 float, 1 double, 2 float16, 3 bfloat16.
extern "C" void forward_and_backward(const Call* call, int type) {
  switch (type) {
    case 0:
      return run<float, float>(*call);
    case 1:
      return run<double, double>(*call);
    case 2:
      return run<half_t, float>(*call);
    default:
      return run<bfloat16_t, float>(*call);
  }
}
