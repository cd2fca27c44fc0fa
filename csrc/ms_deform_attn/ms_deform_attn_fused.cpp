// CPU implementation of the operators queryseg::ms_deform_attn_fused and its backward.

#include <tuple>

#include "common/cpu/new_result.h"
#include "common/tensor.h"
#include "ms_deform_attn/cpu/run.h"
#include "ms_deform_attn/fused_arguments.h"

namespace queryseg {
namespace {

Tensor forward_cpu(const Tensor& value, std::vector<int64_t> spatial_shapes,
                   const Tensor& reference_points, const Tensor& sampling_offsets,
                   const Tensor& attention_logits) {
  const FusedTensors points(value, spatial_shapes, reference_points, sampling_offsets,
                            attention_logits);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor output = new_result(value, output_sizes(points.shape));
  if (output.numel() > 0) {
    run_forward({points.shape, value_type(value), values.const_data_ptr(), points.inputs(),
                 output.mutable_data_ptr()});
  }
  return output;
}

// (B, Q, M, L, K) summed over the heads, in their order.
template <typename A>
void sum_heads(const Tensor& by_head, const Tensor& sums) {
  const int64_t heads = by_head.size(2);
  const int64_t width = by_head.size(3) * by_head.size(4);
  const A* from = static_cast<const A*>(by_head.const_data_ptr());
  A* to = static_cast<A*>(sums.mutable_data_ptr());
  torch::stable::parallel_for(
      0, by_head.size(0) * by_head.size(1), 256, [&](int64_t begin, int64_t end) {
        for (int64_t query = begin; query < end; ++query) {
          std::fill_n(to + query * width, width, A(0));
          for (int64_t head = 0; head < heads; ++head) {
            for (int64_t i = 0; i < width; ++i) {
              to[query * width + i] += from[(query * heads + head) * width + i];
            }
          }
        }
      });
}

Tensor summed_over_heads(const Tensor& by_head) {
  const Tensor sums =
      new_result(by_head, {by_head.size(0), by_head.size(1), by_head.size(3), by_head.size(4)});
  if (by_head.scalar_type() == ScalarType::Double) {
    sum_heads<double>(by_head, sums);
  } else {
    sum_heads<float>(by_head, sums);
  }
  return sums;
}

// Gradients of value, reference points (without elements if not `reference_grad`), offsets and
// logits.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward_cpu(
    const Tensor& grad_output, const Tensor& value, std::vector<int64_t> spatial_shapes,
    const Tensor& reference_points, const Tensor& sampling_offsets, const Tensor& attention_logits,
    bool reference_grad) {
  const FusedTensors points(value, spatial_shapes, reference_points, sampling_offsets,
                            attention_logits);
  const AttnShape& shape = points.shape;
  check_grad_output(grad_output, value, shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor grad_value = new_result(value, value.sizes());
  const Tensor grad_offsets = new_result(sampling_offsets, sampling_offsets.sizes());
  const Tensor grad_logits = new_result(attention_logits, attention_logits.sizes());
  const int64_t images = reference_grad ? shape.batch : 0;
  const Tensor by_head = new_result(
      reference_points,
      {images, shape.queries, shape.heads, reference_points.size(2), reference_points.size(3)});
  run_backward({shape, value_type(value), values.const_data_ptr(), grads.const_data_ptr(),
                points.inputs(),
                FusedGrads{reference_grad ? by_head.mutable_data_ptr() : nullptr,
                           grad_offsets.mutable_data_ptr(), grad_logits.mutable_data_ptr()},
                grad_value.mutable_data_ptr()});
  return {grad_value, summed_over_heads(by_head), grad_offsets, grad_logits};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("ms_deform_attn_fused", TORCH_BOX(&forward_cpu));
  library.impl("ms_deform_attn_fused_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
