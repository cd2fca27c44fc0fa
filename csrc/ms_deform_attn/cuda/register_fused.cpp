// CUDA implementation of the operators queryseg::ms_deform_attn_fused and its backward.

#include <tuple>

#include "common/cuda/tensor.h"
#include "ms_deform_attn/cuda/launch.h"
#include "ms_deform_attn/cuda/limits.h"
#include "ms_deform_attn/fused_arguments.h"

namespace queryseg {
namespace {

Tensor forward_cuda(const Tensor& value, std::vector<int64_t> spatial_shapes,
                    const Tensor& reference_points, const Tensor& sampling_offsets,
                    const Tensor& attention_logits) {
  const DeviceGuard guard(value.get_device_index());
  const FusedTensors points(value, spatial_shapes, reference_points, sampling_offsets,
                            attention_logits);
  check_cuda_limits(points.shape);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor output = torch::stable::new_empty(value, output_sizes(points.shape));
  if (output.numel() > 0) {
    const ForwardArgs args{points.shape, value_type(value), values.const_data_ptr(),
                           points.inputs(), output.mutable_data_ptr()};
    STD_CUDA_CHECK(ms_deform_attn_fused_forward_cuda(args, current_stream(value)));
  }
  return output;
}

// Gradients of value, reference points (without elements if not `reference_grad`), offsets and
// logits. What is added to atomically is summed in the compute type: half precision would lose
// small addends.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward_cuda(
    const Tensor& grad_output, const Tensor& value, std::vector<int64_t> spatial_shapes,
    const Tensor& reference_points, const Tensor& sampling_offsets, const Tensor& attention_logits,
    bool reference_grad) {
  const DeviceGuard guard(value.get_device_index());
  const FusedTensors points(value, spatial_shapes, reference_points, sampling_offsets,
                            attention_logits);
  const AttnShape& shape = points.shape;
  check_cuda_limits(shape);
  check_grad_output(grad_output, value, shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const ScalarType wide = compute_type(value);
  const Tensor grad_value = torch::stable::new_zeros(value, value.sizes(), wide);
  const Tensor grad_reference = torch::stable::new_zeros(
      reference_points, {reference_grad ? shape.batch : 0, shape.queries, reference_points.size(2),
                         reference_points.size(3)});
  const Tensor grad_offsets = torch::stable::new_empty(sampling_offsets, sampling_offsets.sizes());
  const Tensor grad_logits =
      torch::stable::new_empty(attention_logits, attention_logits.sizes(), wide);
  if (attention_logits.numel() > 0) {
    const BackwardArgs args{
        shape,
        value_type(value),
        values.const_data_ptr(),
        grads.const_data_ptr(),
        points.inputs(),
        FusedGrads{reference_grad ? grad_reference.mutable_data_ptr() : nullptr,
                   grad_offsets.mutable_data_ptr(), grad_logits.mutable_data_ptr()},
        grad_value.mutable_data_ptr()};
    STD_CUDA_CHECK(ms_deform_attn_fused_backward_cuda(args, current_stream(value)));
  }
  return {torch::stable::to(grad_value, value.scalar_type()), grad_reference, grad_offsets,
          torch::stable::to(grad_logits, attention_logits.scalar_type())};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  library.impl("ms_deform_attn_fused", TORCH_BOX(&forward_cuda));
  library.impl("ms_deform_attn_fused_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace queryseg
