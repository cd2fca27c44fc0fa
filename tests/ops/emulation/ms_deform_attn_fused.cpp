// The CUDA kernels of ms_deform_attn_fused as plain functions, for ctypes.

#include "cuda_emulation.h"
// The kernels come after the words they are written in.
#include "ms_deform_attn/cuda/fused_source.cuh"
#include "ms_deform_attn/cuda/kernels.cuh"

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
};

template <typename T, typename A, int N, int kGroup>
static void run(const Call& call) {
  const auto number = static_cast<ValueType>(call.number);
  const int64 image = call.shape->queries * call.row;
  const int64* steps = call.reference_steps;
  const FusedSource<A> source{static_cast<const A*>(call.reference),
                              {steps[0], steps[1], steps[2], steps[3]},
                              call.reference_dim,
                              {call.offsets, number, image, call.row},
                              {call.logits, number, image, call.row},
                              static_cast<A*>(call.grad_reference),
                              call.grad_offsets,
                              static_cast<A*>(call.grad_logits)};
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
template <typename T, typename A>
static void choose(const Call& call, int variant) {
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

extern "C" void forward_and_backward(const Call* call, int type, int variant) {
  switch (type) {
    case 0:
      return choose<float, float>(*call, variant);
    case 1:
      return choose<double, double>(*call, variant);
    case 2:
      return choose<half_t, float>(*call, variant);
    default:
      return choose<bfloat16_t, float>(*call, variant);
  }
}
