// CUDA implementation of the operators queryseg::ms_deform_attn and ms_deform_attn_backward.

#include <tuple>

#include "common/cuda/tensor.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda/launch.h"
#include "ms_deform_attn/cuda/limits.h"

namespace queryseg {
namespace {

Tensor forward_cuda(const Tensor& value, std::vector<int64_t> spatial_shapes,
                    const Tensor& sampling_locations, const Tensor& attention_weights) {
  const AttnShape shape = plain_shape(value, spatial_shapes, sampling_locations, attention_weights);
  check_cuda_limits(shape);
  const DeviceGuard guard(value.get_device_index());
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = contiguous_pairs(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor output = torch::stable::new_empty(value, output_sizes(shape));
  if (output.numel() > 0) {
    const ForwardArgs args{shape, value_type(value), values.const_data_ptr(),
                           PlainInputs{locations.const_data_ptr(), weights.const_data_ptr()},
                           output.mutable_data_ptr()};
    STD_CUDA_CHECK(ms_deform_attn_forward_cuda(args, current_stream(value)));
  }
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(const Tensor& grad_output, const Tensor& value,
                                                 std::vector<int64_t> spatial_shapes,
                                                 const Tensor& sampling_locations,
                                                 const Tensor& attention_weights) {
  const AttnShape shape = plain_shape(value, spatial_shapes, sampling_locations, attention_weights);
  check_cuda_limits(shape);
  check_grad_output(grad_output, value, shape);
  const DeviceGuard guard(value.get_device_index());
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = contiguous_pairs(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  // Summed in the compute type: atomics in half precision would lose small addends.
  const Tensor grad_value = torch::stable::new_zeros(value, value.sizes(), compute_type(value));
  const Tensor grad_locations = torch::stable::new_empty(locations, locations.sizes());
  const Tensor grad_weights = torch::stable::new_empty(weights, weights.sizes());
  if (weights.numel() > 0) {
    const BackwardArgs args{
        shape,
        value_type(value),
        values.const_data_ptr(),
        grads.const_data_ptr(),
        PlainInputs{locations.const_data_ptr(), weights.const_data_ptr()},
        PlainGrads{grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr()},
        grad_value.mutable_data_ptr()};
    STD_CUDA_CHECK(ms_deform_attn_backward_cuda(args, current_stream(value)));
  }
  return {torch::stable::to(grad_value, value.scalar_type()), grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&forward_cuda));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace queryseg
