// CUDA implementation of the operators queryseg::ms_deform_attn and ms_deform_attn_backward.

#include <tuple>

#include "common/cuda/launch.h"
#include "common/tensor.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda/kernels.cuh"

namespace queryseg {
namespace {

using torch::stable::accelerator::DeviceGuard;

device::DeviceShape device_shape(const AttnShape& shape) {
  STD_TORCH_CHECK(shape.levels.size() <= device::kMaxLevels, "at most ", device::kMaxLevels,
                  " levels on CUDA, got ", shape.levels.size());
  STD_TORCH_CHECK(shape.tokens < (int64_t{1} << 31), "value has 2^31 tokens or more");
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
    STD_TORCH_CHECK(level.width < (1 << 27), "a level is 2^27 wide or more");
    result.level[i] = {static_cast<int>(level.start), level.height, level.width};
  }
  return result;
}

// Calls launch.run<T, A, channels per lane, lanes per group>() for the fastest kernel that fits.
template <typename T, typename A, typename Launch>
void choose_kernel(const Launch& launch, int64_t channels, bool vectors) {
  constexpr int kPack = 16 / sizeof(T);
  if (!vectors || channels % kPack != 0) {
    launch.template run<T, A, 1, 32>();
  } else if (channels <= 4 * kPack) {
    launch.template run<T, A, kPack, 4>();
  } else {
    launch.template run<T, A, kPack, 8>();
  }
}

template <typename Launch>
void dispatch(const Launch& launch, ValueType type, int64_t channels, bool vectors) {
  switch (type) {
    case ValueType::kFloat:
      return choose_kernel<float, float>(launch, channels, vectors);
    case ValueType::kDouble:
      return choose_kernel<double, double>(launch, channels, vectors);
    case ValueType::kHalf:
      return choose_kernel<half_t, float>(launch, channels, vectors);
    case ValueType::kBFloat16:
      return choose_kernel<bfloat16_t, float>(launch, channels, vectors);
  }
}

struct Forward {
  const device::DeviceShape& shape;
  const ForwardArgs& args;
  cudaStream_t stream;

  template <typename T, typename A, int N, int kGroup>
  void run() const {
    const device::PlainSource<A> source{static_cast<const A*>(args.points.locations),
                                        static_cast<const A*>(args.points.weights), nullptr,
                                        nullptr};
    const unsigned int blocks = block_count(shape.rows * kGroup, device::kThreads);
    device::forward_kernel<T, A, N, kGroup><<<blocks, device::kThreads, 0, stream>>>(
        shape, source, static_cast<const T*>(args.value), static_cast<T*>(args.output));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

struct Backward {
  const device::DeviceShape& shape;
  const BackwardArgs& args;
  cudaStream_t stream;

  template <typename T, typename A, int N, int kGroup>
  void run() const {
    const device::PlainSource<A> source{
        static_cast<const A*>(args.points.locations), static_cast<const A*>(args.points.weights),
        static_cast<A*>(args.grads.locations), static_cast<A*>(args.grads.weights)};
    const unsigned int blocks = block_count(shape.rows * kGroup, device::kThreads);
    device::backward_kernel<T, A, N, kGroup><<<blocks, device::kThreads, 0, stream>>>(
        shape, source, static_cast<const T*>(args.value), static_cast<const T*>(args.grad_output),
        static_cast<A*>(args.grad_value));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

Tensor forward_cuda(const Tensor& value, std::vector<int64_t> spatial_shapes,
                    const Tensor& sampling_locations, const Tensor& attention_weights) {
  const AttnShape shape = shape_of(value, spatial_shapes, sampling_locations, attention_weights);
  const DeviceGuard guard(value.get_device_index());
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = aligned_pairs(torch::stable::contiguous(sampling_locations));
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor output =
      torch::stable::new_empty(value, {shape.batch, shape.queries, shape.heads * shape.channels});
  if (output.numel() > 0) {
    const ForwardArgs args{shape,
                           value_type(value),
                           values.const_data_ptr(),
                           {locations.const_data_ptr(), weights.const_data_ptr()},
                           output.mutable_data_ptr()};
    const device::DeviceShape on_device = device_shape(shape);
    dispatch(Forward{on_device, args, current_stream(value)}, args.type, shape.channels,
             aligned(args.value, 16) && aligned(args.output, 16));
  }
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(const Tensor& grad_output, const Tensor& value,
                                                 std::vector<int64_t> spatial_shapes,
                                                 const Tensor& sampling_locations,
                                                 const Tensor& attention_weights) {
  const AttnShape shape = shape_of(value, spatial_shapes, sampling_locations, attention_weights);
  check_grad_output(grad_output, value, shape);
  const DeviceGuard guard(value.get_device_index());
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = aligned_pairs(torch::stable::contiguous(sampling_locations));
  const Tensor weights = torch::stable::contiguous(attention_weights);
  // Summed in the compute type: atomics in half precision would lose small addends.
  const Tensor grad_value = torch::stable::new_zeros(value, value.sizes(), compute_type(value));
  const Tensor grad_locations = torch::stable::new_empty(locations, locations.sizes());
  const Tensor grad_weights = torch::stable::new_empty(weights, weights.sizes());
  if (weights.numel() > 0) {
    const BackwardArgs args{shape,
                            value_type(value),
                            values.const_data_ptr(),
                            grads.const_data_ptr(),
                            {locations.const_data_ptr(), weights.const_data_ptr()},
                            {grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr()},
                            grad_value.mutable_data_ptr()};
    const device::DeviceShape on_device = device_shape(shape);
    dispatch(Backward{on_device, args, current_stream(value)}, args.type, shape.channels,
             aligned(args.value, 16) && aligned(args.grad_output, 16));
  }
  return {torch::stable::to(grad_value, value.scalar_type()), grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&forward_cuda));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace queryseg
