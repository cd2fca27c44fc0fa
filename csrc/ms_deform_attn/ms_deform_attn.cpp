// CPU implementation of the operators queryseg::ms_deform_attn and ms_deform_attn_backward.

#include "ms_deform_attn/ms_deform_attn.h"

#include <tuple>

#include "common/cpu/new_result.h"
#include "common/tensor.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu/run.h"

namespace queryseg {
namespace {

Tensor forward_cpu(const Tensor& value, std::vector<int64_t> spatial_shapes,
                   const Tensor& sampling_locations, const Tensor& attention_weights) {
  const AttnShape shape = plain_shape(value, spatial_shapes, sampling_locations, attention_weights);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = torch::stable::contiguous(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor output = new_result(value, output_sizes(shape));
  if (output.numel() > 0) {
    run_forward({shape, value_type(value), values.const_data_ptr(),
                 PlainInputs{locations.const_data_ptr(), weights.const_data_ptr()},
                 output.mutable_data_ptr()});
  }
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& value,
                                                std::vector<int64_t> spatial_shapes,
                                                const Tensor& sampling_locations,
                                                const Tensor& attention_weights) {
  const AttnShape shape = plain_shape(value, spatial_shapes, sampling_locations, attention_weights);
  check_grad_output(grad_output, value, shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = torch::stable::contiguous(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor grad_value = new_result(value, value.sizes());
  const Tensor grad_locations = new_result(locations, locations.sizes());
  const Tensor grad_weights = new_result(weights, weights.sizes());
  run_backward({shape, value_type(value), values.const_data_ptr(), grads.const_data_ptr(),
                PlainInputs{locations.const_data_ptr(), weights.const_data_ptr()},
                PlainGrads{grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr()},
                grad_value.mutable_data_ptr()});
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&forward_cpu));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
