// CPU implementation of the operators queryseg::dynamic_conv and dynamic_conv_backward.

#include "dynamic_conv/dynamic_conv.h"

#include <tuple>

#include "common/cpu/capability.h"
#include "common/tensor.h"
#include "dynamic_conv/arguments.h"
#include "dynamic_conv/cpu/kernels.h"

namespace queryseg {
namespace {

using dynamic_conv::Arguments;

// Instances whose work is worth a thread of its own.
int64_t grain_size(const dynamic_conv::Shape& shape) {
  constexpr int64_t kMultiplications = int64_t{1} << 17;
  const int64_t each = shape.positions * shape.instance_weights();
  return each > kMultiplications ? 1 : kMultiplications / each;
}

Tensor forward_cpu(const Tensor& features, const Tensor& dynamic_weights,
                   const Tensor& norm_in_weight, const Tensor& norm_in_bias,
                   const Tensor& norm_out_weight, const Tensor& norm_out_bias, double eps) {
  const Arguments arguments(features, dynamic_weights, norm_in_weight, norm_in_bias,
                            norm_out_weight, norm_out_bias, eps);
  const Tensor output = arguments.new_output();
  const dynamic_conv::Forward call{arguments.inputs(), output.mutable_data_ptr()};
  const dynamic_conv::Kernels& kernels = QUERYSEG_SELECT(kDynamicConv);
  if (output.numel() > 0) {
    torch::stable::parallel_for(
        0, arguments.shape.instances, grain_size(arguments.shape),
        [&](int64_t begin, int64_t end) { kernels.forward(call, begin, end); });
  }
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& features,
                                                const Tensor& dynamic_weights,
                                                const Tensor& norm_in_weight,
                                                const Tensor& norm_in_bias,
                                                const Tensor& norm_out_weight,
                                                const Tensor& norm_out_bias, double eps) {
  const Arguments arguments(features, dynamic_weights, norm_in_weight, norm_in_bias,
                            norm_out_weight, norm_out_bias, eps);
  arguments.check_grad_output(grad_output);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor grad_features =
      torch::stable::new_empty(arguments.features, arguments.features.sizes());
  Tensor grad_weights =
      torch::stable::new_empty(arguments.dynamic_weights, arguments.dynamic_weights.sizes());
  Tensor norm_shares = arguments.new_norm_shares();
  const dynamic_conv::Backward call{
      arguments.inputs(), grads.const_data_ptr(), grad_features.mutable_data_ptr(),
      grad_weights.mutable_data_ptr(), norm_shares.mutable_data_ptr()};
  const dynamic_conv::Kernels& kernels = QUERYSEG_SELECT(kDynamicConv);
  if (arguments.shape.positions == 0) {
    torch::stable::zero_(grad_weights);
    torch::stable::zero_(norm_shares);
  } else if (arguments.shape.instances > 0) {
    torch::stable::parallel_for(
        0, arguments.shape.instances, grain_size(arguments.shape),
        [&](int64_t begin, int64_t end) { kernels.backward(call, begin, end); });
  }
  return {grad_features, grad_weights, norm_shares};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("dynamic_conv", TORCH_BOX(&forward_cpu));
  library.impl("dynamic_conv_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
