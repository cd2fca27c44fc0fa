// CUDA implementation of the operators queryseg::instance_deform_attn and its backward.

#include <limits>
#include <tuple>

#include "common/cuda/tensor.h"
#include "instance_deform_attn/arguments.h"
#include "instance_deform_attn/cuda/launch.h"

namespace queryseg {
namespace {

void check_cuda_sizes(const InstanceShape& shape) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK((shape.pixels() + shape.width + 1) * shape.channels <= kMost,
                  "one image of mask_feats has 2^31 elements or more");
}

Tensor forward_cuda(const Tensor& mask_feats, const Tensor& dynamic_weights,
                    const Tensor& row_codes, const Tensor& column_codes,
                    std::optional<Tensor> image_index, std::optional<Tensor> valid_sizes,
                    int64_t heads, int64_t points) {
  const DeviceGuard guard(mask_feats.get_device_index());
  const InstanceTensors tensors(mask_feats, dynamic_weights, row_codes, column_codes, image_index,
                                valid_sizes, heads, points);
  const InstanceShape& shape = tensors.shape;
  check_cuda_sizes(shape);
  const Tensor output =
      torch::stable::new_empty(tensors.mask_feats, {shape.instances, shape.height, shape.width});
  if (output.numel() > 0) {
    STD_CUDA_CHECK(instance_deform_attn_forward_cuda(tensors.inputs(), output.mutable_data_ptr(),
                                                     current_stream(mask_feats)));
  }
  return output;
}

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad_output, const Tensor& mask_feats,
                                         const Tensor& dynamic_weights, const Tensor& row_codes,
                                         const Tensor& column_codes,
                                         std::optional<Tensor> image_index,
                                         std::optional<Tensor> valid_sizes, int64_t heads,
                                         int64_t points) {
  const DeviceGuard guard(mask_feats.get_device_index());
  const InstanceTensors tensors(mask_feats, dynamic_weights, row_codes, column_codes, image_index,
                                valid_sizes, heads, points);
  tensors.check_grad_output(grad_output);
  check_cuda_sizes(tensors.shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor grad_feats =
      torch::stable::new_zeros(tensors.mask_feats, tensors.mask_feats.sizes());
  const Tensor grad_weights =
      torch::stable::new_zeros(tensors.dynamic_weights, tensors.dynamic_weights.sizes());
  if (grads.numel() > 0) {
    STD_CUDA_CHECK(instance_deform_attn_backward_cuda(
        tensors.inputs(), grads.const_data_ptr(), grad_feats.mutable_data_ptr(),
        grad_weights.mutable_data_ptr(), current_stream(mask_feats)));
  }
  return {torch::stable::to(grad_feats, mask_feats.scalar_type()), grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  library.impl("instance_deform_attn", TORCH_BOX(&forward_cuda));
  library.impl("instance_deform_attn_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace queryseg
