// The operators queryseg::dynamic_conv and dynamic_conv_backward, once for all devices.
//
// A backend says how a device runs them:
//   Guard              a type whose constructor makes the tensor's device the current one
//   check              refuses what its kernels cannot do, before anything is computed
//   new_result         allocates a tensor of these sizes that a kernel will fill
//   forward, backward  run the kernels on at least one position of at least one instance
#pragma once

#include <tuple>

#include "common/tensor.h"
#include "dynamic_conv/arguments.h"

namespace queryseg {
namespace dynamic_conv {

template <typename Backend>
struct Operators {
  static Tensor forward(const Tensor& features, const Tensor& dynamic_weights,
                        const Tensor& norm_in_weight, const Tensor& norm_in_bias,
                        const Tensor& norm_out_weight, const Tensor& norm_out_bias, double eps) {
    const typename Backend::Guard guard(features);
    const Arguments arguments(features, dynamic_weights, norm_in_weight, norm_in_bias,
                              norm_out_weight, norm_out_bias, eps);
    const Shape& shape = arguments.shape;
    Backend::check(arguments.inputs());
    const Tensor output =
        Backend::new_result(arguments.features, {shape.instances, shape.positions, shape.channels});
    if (output.numel() > 0) {
      Backend::forward(Forward{arguments.inputs(), output.mutable_data_ptr()}, output);
    }
    return output;
  }

  static std::tuple<Tensor, Tensor, Tensor> backward(
      const Tensor& grad_output, const Tensor& features, const Tensor& dynamic_weights,
      const Tensor& norm_in_weight, const Tensor& norm_in_bias, const Tensor& norm_out_weight,
      const Tensor& norm_out_bias, double eps) {
    const typename Backend::Guard guard(features);
    const Arguments arguments(features, dynamic_weights, norm_in_weight, norm_in_bias,
                              norm_out_weight, norm_out_bias, eps);
    const Shape& shape = arguments.shape;
    arguments.check_grad_output(grad_output);
    Backend::check(arguments.inputs());
    const Tensor grads = torch::stable::contiguous(grad_output);
    const Tensor grad_features =
        Backend::new_result(arguments.features, arguments.features.sizes());
    Tensor grad_weights =
        Backend::new_result(arguments.dynamic_weights, arguments.dynamic_weights.sizes());
    Tensor norm_shares =
        Backend::new_result(arguments.norm_in_weight, {shape.instances, shape.norm_values()});
    if (grads.numel() > 0) {
      Backend::backward(
          Backward{arguments.inputs(), grads.const_data_ptr(), grad_features.mutable_data_ptr(),
                   grad_weights.mutable_data_ptr(), norm_shares.mutable_data_ptr()},
          grads);
    } else {
      torch::stable::zero_(grad_weights);
      torch::stable::zero_(norm_shares);
    }
    return {grad_features, grad_weights, norm_shares};
  }
};

}  // namespace dynamic_conv
}  // namespace queryseg
