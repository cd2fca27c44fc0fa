// From the operator's tensors to the kernels' arguments, with the checks that keep the kernels
// inside their arrays. The Python wrapper has the friendlier messages.
#pragma once

#include "common/tensor.h"
#include "dynamic_conv/dynamic_conv.h"

namespace queryseg {
namespace dynamic_conv {

// The arguments of a call, contiguous and checked against each other.
struct Arguments {
  Tensor features, dynamic_weights;
  Tensor norm_in_weight, norm_in_bias, norm_out_weight, norm_out_bias;
  double eps;
  Shape shape;

  Arguments(const Tensor& features, const Tensor& dynamic_weights, const Tensor& norm_in_weight,
            const Tensor& norm_in_bias, const Tensor& norm_out_weight, const Tensor& norm_out_bias,
            double eps)
      : features(torch::stable::contiguous(features)),
        dynamic_weights(torch::stable::contiguous(dynamic_weights)),
        norm_in_weight(torch::stable::contiguous(norm_in_weight)),
        norm_in_bias(torch::stable::contiguous(norm_in_bias)),
        norm_out_weight(torch::stable::contiguous(norm_out_weight)),
        norm_out_bias(torch::stable::contiguous(norm_out_bias)),
        eps(eps),
        shape(shape_of(features, norm_in_weight)) {
    check_shape(dynamic_weights, "dynamic_weights", {shape.instances, shape.instance_weights()});
    check_same_device(dynamic_weights, "dynamic_weights", features, "features");
    STD_TORCH_CHECK(dynamic_weights.scalar_type() == features.scalar_type(),
                    "dynamic_weights must have the dtype of features");
    check_norm(norm_in_weight, "norm_in_weight", shape.inner);
    check_norm(norm_in_bias, "norm_in_bias", shape.inner);
    check_norm(norm_out_weight, "norm_out_weight", shape.channels);
    check_norm(norm_out_bias, "norm_out_bias", shape.channels);
    STD_TORCH_CHECK(eps > 0, "eps must be positive, got ", eps);
  }

  Inputs inputs() const {
    return {shape,
            value_type(features),
            features.const_data_ptr(),
            dynamic_weights.const_data_ptr(),
            norm_in_weight.const_data_ptr(),
            norm_in_bias.const_data_ptr(),
            norm_out_weight.const_data_ptr(),
            norm_out_bias.const_data_ptr(),
            eps};
  }

  void check_grad_output(const Tensor& grad_output) const {
    check_shape(grad_output, "grad_output", {shape.instances, shape.positions, shape.channels});
    check_same_device(grad_output, "grad_output", features, "features");
    STD_TORCH_CHECK(grad_output.scalar_type() == features.scalar_type(),
                    "grad_output must have the dtype of features");
  }

 private:
  static Shape shape_of(const Tensor& features, const Tensor& norm_in_weight) {
    STD_TORCH_CHECK(features.dim() == 3 || features.dim() == 4,
                    "features must have shape (N, C, R, R) or (N, T, C), got ",
                    shape_text(features));
    STD_TORCH_CHECK(norm_in_weight.dim() == 1, "norm_in_weight must have shape (d,), got ",
                    shape_text(norm_in_weight));
    const bool as_map = features.dim() == 4;
    const Shape shape{features.size(0),
                      as_map ? features.size(2) * features.size(3) : features.size(1),
                      features.size(as_map ? 1 : 2), norm_in_weight.size(0), as_map};
    constexpr int64_t kMost = int64_t{1} << 24;
    STD_TORCH_CHECK(shape.channels > 0 && shape.inner > 0 && shape.channels < kMost &&
                        shape.inner < kMost && shape.positions < kMost,
                    "channels and d must be positive, channels, d and positions below 2^24, got ",
                    shape.channels, ", ", shape.inner, " and ", shape.positions);
    return shape;
  }

  void check_norm(const Tensor& tensor, const char* name, int64_t size) const {
    check_shape(tensor, name, {size});
    check_same_device(tensor, name, features, "features");
    STD_TORCH_CHECK(tensor.scalar_type() == compute_type(features), name,
                    " must be float64 with float64 features, else float32");
  }
};

}  // namespace dynamic_conv
}  // namespace queryseg
