// Chooses and launches the CUDA kernels of per-instance deformable attention.

#include "instance_deform_attn/cuda/launch.h"

#include <limits>

#include "common/cuda/grid.h"
#include "instance_deform_attn/cuda/kernels.cuh"

namespace queryseg {
namespace {

device::InstanceDims device_dims(const InstanceShape& shape, int pixels_per_block) {
  const LayerOffsets at(shape);
  const int64_t blocks = (shape.pixels() + pixels_per_block - 1) / pixels_per_block;
  return {shape.instances,
          shape.batch,
          static_cast<int>(shape.height),
          static_cast<int>(shape.width),
          static_cast<int>(shape.channels),
          static_cast<int>(shape.heads),
          static_cast<int>(shape.points),
          static_cast<int>(shape.row_channels),
          static_cast<int>(shape.dynamic_weights()),
          static_cast<int>(blocks),
          static_cast<int>(at.offset_bias),
          static_cast<int>(at.attn_weight),
          static_cast<int>(at.attn_bias),
          static_cast<int>(at.out_weight),
          static_cast<int>(at.out_bias)};
}

template <typename A>
device::InstancePointers<A> pointers(const InstanceInputs& inputs) {
  static_assert(sizeof(int64_t) == sizeof(device::int64), "the same 64-bit integers");
  return {static_cast<const A*>(inputs.mask_feats),
          static_cast<const A*>(inputs.dynamic_weights),
          static_cast<const A*>(inputs.row_codes),
          static_cast<const A*>(inputs.column_codes),
          reinterpret_cast<const device::int64*>(inputs.image_index),
          reinterpret_cast<const device::int64*>(inputs.valid_sizes)};
}

// launch(dims, blocks) with the right number of blocks.
template <typename Launch>
cudaError_t over_blocks(const InstanceShape& shape, int tiles, const Launch& launch) {
  const device::InstanceDims dims = device_dims(shape, tiles * device::kThreads);
  const int64_t blocks = shape.instances * dims.blocks;
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return cudaErrorInvalidConfiguration;
  }
  launch(dims, static_cast<unsigned int>(blocks));
  return cudaGetLastError();
}

template <typename A, int kC, int kD>
cudaError_t run_forward(const InstanceInputs& inputs, void* output, cudaStream_t stream) {
  return over_blocks(inputs.shape, 1, [&](const device::InstanceDims& dims, unsigned int blocks) {
    device::instance_forward_kernel<A, kC, kD><<<blocks, device::kThreads, 0, stream>>>(
        dims, pointers<A>(inputs), static_cast<A*>(output));
  });
}

template <typename A, int kC, int kD>
cudaError_t run_backward(const InstanceInputs& inputs, const void* grad_output, void* grad_feats,
                         void* grad_weights, cudaStream_t stream) {
  const auto launch = [&](const device::InstanceDims& dims, unsigned int blocks) {
    device::instance_backward_kernel<A, kC, kD><<<blocks, device::kThreads, 0, stream>>>(
        dims, pointers<A>(inputs), static_cast<const A*>(grad_output), static_cast<A*>(grad_feats),
        static_cast<A*>(grad_weights));
  };
  return over_blocks(inputs.shape, device::kTilesPerBlock, launch);
}

// SOIT: 8 channels in heads of 2, which are read together.
bool is_soit(const InstanceInputs& inputs) {
  return inputs.shape.channels == 8 && inputs.shape.heads == 4 &&
         aligned(inputs.mask_feats, 2 * sizeof(float));
}

}  // namespace

cudaError_t instance_deform_attn_forward_cuda(const InstanceInputs& inputs, void* output,
                                              cudaStream_t stream) {
  if (inputs.is_double) {
    return run_forward<double, 0, 4>(inputs, output, stream);
  }
  return is_soit(inputs) ? run_forward<float, 8, 2>(inputs, output, stream)
                         : run_forward<float, 0, 4>(inputs, output, stream);
}

cudaError_t instance_deform_attn_backward_cuda(const InstanceInputs& inputs,
                                               const void* grad_output, void* grad_feats,
                                               void* grad_weights, cudaStream_t stream) {
  if (inputs.is_double) {
    return run_backward<double, 0, 4>(inputs, grad_output, grad_feats, grad_weights, stream);
  }
  return is_soit(inputs)
             ? run_backward<float, 8, 2>(inputs, grad_output, grad_feats, grad_weights, stream)
             : run_backward<float, 0, 4>(inputs, grad_output, grad_feats, grad_weights, stream);
}

}  // namespace queryseg
