// The CUDA kernels of instance_deform_attn as plain functions, for ctypes.

#include "cuda_emulation.h"
// The kernels come after the words they are written in.
#include "instance_deform_attn/cuda/kernels.cuh"

using namespace queryseg::device;

struct Call {
  const InstanceDims* dims;
  const void* mask_feats;
  const void* dynamic_weights;
  const void* row_codes;
  const void* column_codes;
  const int64* image_index;
  const int64* valid_sizes;
  void* output;
  const void* grad_output;
  void* grad_feats;
  void* grad_weights;
};

template <typename A, int kC, int kD>
static void run(const Call& call) {
  const InstancePointers<A> from{static_cast<const A*>(call.mask_feats),
                                 static_cast<const A*>(call.dynamic_weights),
                                 static_cast<const A*>(call.row_codes),
                                 static_cast<const A*>(call.column_codes),
                                 call.image_index,
                                 call.valid_sizes};
  InstanceDims dims = *call.dims;
  const int pixels = dims.height * dims.width;
  dims.blocks = (pixels + kThreads - 1) / kThreads;
  emulation::launch(static_cast<unsigned int>(dims.instances * dims.blocks), kThreads, [&] {
    instance_forward_kernel<A, kC, kD>(dims, from, static_cast<A*>(call.output));
  });
  dims.blocks = (pixels + kTilesPerBlock * kThreads - 1) / (kTilesPerBlock * kThreads);
  emulation::launch(static_cast<unsigned int>(dims.instances * dims.blocks), kThreads, [&] {
    instance_backward_kernel<A, kC, kD>(dims, from, static_cast<const A*>(call.grad_output),
                                        static_cast<A*>(call.grad_feats),
                                        static_cast<A*>(call.grad_weights));
  });
}

// variant: 0 any size in double, 1 any size in float, 2 SOIT's sizes in float.
extern "C" void forward_and_backward(const Call* call, int variant) {
  if (variant == 0) {
    run<double, 0, 4>(*call);
  } else if (variant == 1) {
    run<float, 0, 4>(*call);
  } else {
    run<float, 8, 2>(*call);
  }
}
