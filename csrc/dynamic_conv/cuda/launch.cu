// Chooses and launches the CUDA kernels of the dynamic convolution.

#include "dynamic_conv/cuda/launch.h"

#include <limits>

#include "dynamic_conv/cuda/kernels.cuh"

namespace queryseg {
namespace dynamic_conv {
namespace {

// What a block may have on every device from sm_70 on, if it asks for it.
constexpr int64_t kMostShared = int64_t{64} << 10;

int64_t shared_bytes(const Inputs& inputs, int64_t rows, bool backward) {
  const Shape& shape = inputs.shape;
  return inputs.type == ValueType::kDouble
             ? device::conv_shared_bytes<double>(rows, shape.channels, shape.inner, backward)
             : device::conv_shared_bytes<float>(rows, shape.channels, shape.inner, backward);
}

device::ConvDims dims_for(const Inputs& inputs, bool backward) {
  int64_t rows = device::kTileRows;
  while (rows > 1 && shared_bytes(inputs, rows, backward) > kMostShared) {
    rows /= 2;
  }
  const Shape& shape = inputs.shape;
  return {shape.instances,
          static_cast<int>(shape.positions),
          static_cast<int>(shape.channels),
          static_cast<int>(shape.inner),
          static_cast<int>(rows),
          static_cast<int>((shape.positions + rows - 1) / rows),
          shape.as_map};
}

template <typename T, typename A>
device::ConvInputs<T, A> inputs_for(const Inputs& inputs) {
  return {static_cast<const T*>(inputs.features),
          static_cast<const T*>(inputs.dynamic_weights),
          static_cast<const A*>(inputs.norm_in_weight),
          static_cast<const A*>(inputs.norm_in_bias),
          static_cast<const A*>(inputs.norm_out_weight),
          static_cast<const A*>(inputs.norm_out_bias),
          static_cast<A>(inputs.eps)};
}

int64_t hidden_values(const Shape& shape) {
  return shape.instances * shape.positions * shape.inner;
}

template <typename A>
device::ConvScratch<A> scratch_for(const Shape& shape, void* memory) {
  A* const hidden = static_cast<A*>(memory);
  A* const grad_inner = hidden + hidden_values(shape);
  A* const grad_outer = grad_inner + hidden_values(shape);
  return {hidden, grad_inner, grad_outer, grad_outer + shape.instances * shape.instance_features()};
}

// launch(blocks) if there can be so many; shared memory beyond the usual is asked for first.
template <typename Kernel, typename Launch>
cudaError_t over_blocks(Kernel* kernel, int64_t blocks, int64_t bytes, const Launch& launch) {
  constexpr int64_t kUsual = int64_t{48} << 10;
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return cudaErrorInvalidConfiguration;
  }
  if (bytes > kUsual) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess) {
      return error;
    }
  }
  launch(static_cast<unsigned int>(blocks));
  return cudaGetLastError();
}

struct RunForward {
  const Forward& call;
  cudaStream_t stream;

  template <typename T, typename A>
  cudaError_t run() const {
    const device::ConvDims dims = dims_for(call.inputs, false);
    const int64_t bytes = shared_bytes(call.inputs, dims.rows, false);
    return over_blocks(device::conv_forward_kernel<T, A>, dims.instances * dims.tiles, bytes,
                       [&](unsigned int blocks) {
                         device::conv_forward_kernel<T, A>
                             <<<blocks, device::kConvThreads, bytes, stream>>>(
                                 dims, inputs_for<T, A>(call.inputs), static_cast<T*>(call.output));
                       });
  }
};

struct RunBackward {
  const Backward& call;
  void* memory;
  cudaStream_t stream;

  template <typename T, typename A>
  cudaError_t run() const {
    const device::ConvDims dims = dims_for(call.inputs, true);
    const int64_t bytes = shared_bytes(call.inputs, dims.rows, true);
    const device::ConvScratch<A> scratch = scratch_for<A>(call.inputs.shape, memory);
    const device::ConvInputs<T, A> inputs = inputs_for<T, A>(call.inputs);
    cudaError_t error = over_blocks(device::conv_backward_kernel<T, A>, dims.instances * dims.tiles,
                                    bytes, [&](unsigned int blocks) {
                                      device::conv_backward_kernel<T, A>
                                          <<<blocks, device::kConvThreads, bytes, stream>>>(
                                              dims, inputs, static_cast<const T*>(call.grad_output),
                                              static_cast<T*>(call.grad_features), scratch);
                                    });
    if (error != cudaSuccess) {
      return error;
    }
    error = over_blocks(
        device::conv_weights_kernel<T, A>, 2 * dims.instances, 0, [&](unsigned int blocks) {
          device::conv_weights_kernel<T, A><<<blocks, device::kConvThreads, 0, stream>>>(
              dims, inputs.features, scratch, static_cast<T*>(call.grad_weights));
        });
    if (error != cudaSuccess) {
      return error;
    }
    return over_blocks(device::conv_norms_kernel<A>, dims.instances, 0, [&](unsigned int blocks) {
      device::conv_norms_kernel<A><<<blocks, device::kConvThreads, 0, stream>>>(
          dims, scratch.shares, static_cast<A*>(call.norm_shares));
    });
  }
};

template <typename Run>
cudaError_t dispatch(ValueType type, const Run& run) {
  switch (type) {
    case ValueType::kFloat:
      return run.template run<float, float>();
    case ValueType::kDouble:
      return run.template run<double, double>();
    case ValueType::kHalf:
      return run.template run<half_t, float>();
    default:
      return run.template run<bfloat16_t, float>();
  }
}

}  // namespace

bool fits_cuda(const Inputs& inputs) {
  return shared_bytes(inputs, 1, true) <= kMostShared;
}

int64_t cuda_scratch_bytes(const Inputs& inputs) {
  const Shape& shape = inputs.shape;
  const int64_t shares = shape.instances * dims_for(inputs, true).tiles * shape.norm_values();
  const int64_t values =
      2 * hidden_values(shape) + shape.instances * shape.instance_features() + shares;
  return values *
         static_cast<int64_t>(inputs.type == ValueType::kDouble ? sizeof(double) : sizeof(float));
}

cudaError_t forward_cuda(const Forward& call, cudaStream_t stream) {
  return dispatch(call.inputs.type, RunForward{call, stream});
}

cudaError_t backward_cuda(const Backward& call, void* scratch, cudaStream_t stream) {
  return dispatch(call.inputs.type, RunBackward{call, scratch, stream});
}

}  // namespace dynamic_conv
}  // namespace queryseg
