// Per-instance deformable attention over a mask map (Dong et al., "SOIT", section 3.3): what the
// CPU and CUDA kernels agree on.
//
// For instance n, its image's map F and pixel p = (row, column):
//   z         = F[p] + (row code | column code)
//   offset_mk = W_offset z + b_offset (pixels, x then y);  a_mk = softmax_k(W_attn z + b_attn)
//   h_m       = sum_k a_mk * bilinear(F_m, p + offset_mk), zero outside the image's valid area
//   output    = w_out . ReLU(h) + b_out
// with the layers cut from the instance's vector in this order, rows numbered (head, point, xy).
#pragma once

#include <cstdint>

namespace queryseg {

// Letters as in the Python wrapper: B, H, W, C, M, K, N.
struct InstanceShape {
  int64_t batch;
  int64_t height;
  int64_t width;
  int64_t channels;
  int64_t heads;
  int64_t points;
  int64_t instances;
  int64_t row_channels;  // the first channels get a row's code, the others a column's

  int64_t head_channels() const { return channels / heads; }
  int64_t column_channels() const { return channels - row_channels; }
  int64_t pixels() const { return height * width; }
  int64_t dynamic_weights() const { return 3 * heads * points * (channels + 1) + channels + 1; }
};

// Elements of the floating arrays are float, or double where is_double says so.
struct InstanceInputs {
  InstanceShape shape;
  bool is_double;
  const void* mask_feats;       // (B, H, W, C)
  const void* dynamic_weights;  // (N, 3MK(C + 1) + C + 1)
  const void* row_codes;        // (N, H + 1, C_row); row H: for pixels in padded columns
  const void* column_codes;     // (N, W + 1, C_column); column W: for pixels in padded rows
  const int64_t* image_index;   // (N,), or null: all of image 0
  const int64_t* valid_sizes;   // (B, 2) as (height, width), or null: the whole map
};

// Where the layers of an instance lie in its vector.
struct LayerOffsets {
  int64_t offset_bias, attn_weight, attn_bias, out_weight, out_bias;

  explicit LayerOffsets(const InstanceShape& shape) {
    const int64_t rows = shape.heads * shape.points;
    offset_bias = 2 * rows * shape.channels;
    attn_weight = offset_bias + 2 * rows;
    attn_bias = attn_weight + rows * shape.channels;
    out_weight = attn_bias + rows;
    out_bias = out_weight + shape.channels;
  }
};

}  // namespace queryseg
