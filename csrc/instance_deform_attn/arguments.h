// From the operator's tensors to the kernels' arguments, with the checks that keep the kernels
// inside their arrays. The Python wrapper has the friendlier messages.
#pragma once

#include <optional>

#include "common/tensor.h"
#include "instance_deform_attn/instance_deform_attn.h"

namespace queryseg {

// The tensors of a call, contiguous and in the compute type; they keep the arrays alive.
struct InstanceTensors {
  InstanceShape shape;
  Tensor mask_feats;
  Tensor dynamic_weights;
  Tensor row_codes;
  Tensor column_codes;
  std::optional<Tensor> image_index;
  std::optional<Tensor> valid_sizes;

  InstanceTensors(const Tensor& feats, const Tensor& weights, const Tensor& rows,
                  const Tensor& columns, const std::optional<Tensor>& images,
                  const std::optional<Tensor>& valid, int64_t heads, int64_t points)
      : shape(shape_of(feats, rows, weights, heads, points)),
        mask_feats(torch::stable::contiguous(torch::stable::to(feats, compute_type(feats)))),
        dynamic_weights(torch::stable::contiguous(weights)),
        row_codes(torch::stable::contiguous(rows)),
        column_codes(torch::stable::contiguous(columns)) {
    check_floats(weights, "dynamic_weights", {shape.instances, shape.dynamic_weights()});
    check_floats(rows, "row_codes", {shape.instances, shape.height + 1, shape.row_channels});
    check_floats(columns, "column_codes",
                 {shape.instances, shape.width + 1, shape.column_channels()});
    if (images.has_value()) {
      check_indices(*images, "image_index", {shape.instances});
      image_index = torch::stable::contiguous(*images);
    } else {
      STD_TORCH_CHECK(shape.batch == 1 || shape.instances == 0,
                      "image_index is needed with more or less than one image, got ", shape.batch);
    }
    if (valid.has_value()) {
      check_indices(*valid, "valid_sizes", {shape.batch, 2});
      valid_sizes = torch::stable::contiguous(*valid);
    }
  }

  InstanceInputs inputs() const {
    return {shape,
            mask_feats.scalar_type() == ScalarType::Double,
            mask_feats.const_data_ptr(),
            dynamic_weights.const_data_ptr(),
            row_codes.const_data_ptr(),
            column_codes.const_data_ptr(),
            index_pointer(image_index),
            index_pointer(valid_sizes)};
  }

  void check_grad_output(const Tensor& grad_output) const {
    check_floats(grad_output, "grad_output", {shape.instances, shape.height, shape.width});
  }

 private:
  static const int64_t* index_pointer(const std::optional<Tensor>& tensor) {
    return tensor.has_value() ? static_cast<const int64_t*>(tensor->const_data_ptr()) : nullptr;
  }

  static InstanceShape shape_of(const Tensor& feats, const Tensor& rows, const Tensor& weights,
                                int64_t heads, int64_t points) {
    STD_TORCH_CHECK(feats.dim() == 4, "mask_feats must have shape (B, H, W, C), got ",
                    shape_text(feats));
    STD_TORCH_CHECK(
        feats.scalar_type() == ScalarType::Float || feats.scalar_type() == ScalarType::Double ||
            feats.scalar_type() == ScalarType::Half || feats.scalar_type() == ScalarType::BFloat16,
        "mask_feats must be float32, float64, float16 or bfloat16");
    STD_TORCH_CHECK(rows.dim() == 3, "row_codes must have shape (N, H + 1, C_row), got ",
                    shape_text(rows));
    STD_TORCH_CHECK(weights.dim() == 2, "dynamic_weights must have two dimensions, got ",
                    shape_text(weights));
    const int64_t channels = feats.size(3);
    STD_TORCH_CHECK(heads > 0 && points > 0 && channels > 0 && channels % heads == 0,
                    "heads and points must be positive and heads must divide the channels, got ",
                    heads, " heads, ", points, " points, ", channels, " channels");
    STD_TORCH_CHECK(heads * points < (int64_t{1} << 20) && channels < (int64_t{1} << 20),
                    "2^20 or more points or channels");
    // A cell's number must be exact in float32.
    STD_TORCH_CHECK(feats.size(1) < (1 << 24) && feats.size(2) < (1 << 24) &&
                        (feats.size(1) + 4) * (feats.size(2) + 4) < (1 << 24),
                    "mask_feats must have less than 2^24 pixels, got ", shape_text(feats));
    STD_TORCH_CHECK(rows.size(2) <= channels, "row_codes have more channels than mask_feats");
    const InstanceShape shape{feats.size(0), feats.size(1), feats.size(2),   channels,
                              heads,         points,        weights.size(0), rows.size(2)};
    STD_TORCH_CHECK(shape.dynamic_weights() < (int64_t{1} << 31),
                    "dynamic_weights have 2^31 or more numbers for each instance");
    return shape;
  }

  void check_floats(const Tensor& tensor, const char* name,
                    const std::vector<int64_t>& sizes) const {
    check_shape(tensor, name, sizes);
    check_same_device(tensor, name, mask_feats, "mask_feats");
    STD_TORCH_CHECK(tensor.scalar_type() == mask_feats.scalar_type(), name,
                    " must be float64 with float64 mask_feats, else float32");
  }

  void check_indices(const Tensor& tensor, const char* name,
                     const std::vector<int64_t>& sizes) const {
    check_shape(tensor, name, sizes);
    check_same_device(tensor, name, mask_feats, "mask_feats");
    STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Long, name, " must be int64");
  }
};

}  // namespace queryseg
