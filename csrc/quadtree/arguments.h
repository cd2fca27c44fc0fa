// From the operator's tensors to the kernels' arguments, with the checks that keep the kernels
// inside their arrays. The Python wrapper has the friendlier messages.
#pragma once

#include <limits>

#include "common/tensor.h"
#include "quadtree/quadtree.h"

namespace queryseg {
namespace quadtree {

// The tensors that say where the nodes lie, contiguous and checked against each other.
struct NodeTensors {
  Tensor windows, bins, index, level;

  NodeTensors(const Tensor& windows, const Tensor& bins, const Tensor& index, const Tensor& level)
      : windows(torch::stable::contiguous(windows)),
        bins(torch::stable::contiguous(bins)),
        index(torch::stable::contiguous(index)),
        level(torch::stable::contiguous(level)) {}

  // `values` are the features or the gradient of the output.
  void check(const Tensor& values) const {
    STD_TORCH_CHECK(windows.dim() == 3, "windows must have shape (N, G, 4), got ",
                    shape_text(windows));
    check_shape(windows, "windows", {windows.size(0), windows.size(1), 4});
    check_shape(bins, "bins", {windows.size(0), windows.size(1), 4});
    STD_TORCH_CHECK(level.dim() == 1, "node_level must have shape (T,), got ", shape_text(level));
    check_shape(index, "node_index", {level.size(0), 3});
    STD_TORCH_CHECK(windows.scalar_type() == compute_type(values),
                    "windows must be float64 with float64 values, else float32");
    check_same_device(windows, "windows", values, "the values");
    for (const Tensor* tensor : {&bins, &index, &level}) {
      const char* name = tensor == &bins ? "bins" : tensor == &index ? "node_index" : "node_level";
      STD_TORCH_CHECK(tensor->scalar_type() == ScalarType::Long, name, " must be int64");
      check_same_device(*tensor, name, values, "the values");
    }
  }

  NodeInputs inputs() const {
    return {windows.const_data_ptr(), static_cast<const int64_t*>(bins.const_data_ptr()),
            static_cast<const int64_t*>(index.const_data_ptr()),
            static_cast<const int64_t*>(level.const_data_ptr())};
  }
};

inline void check_map_size(int64_t height, int64_t width) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(height > 0 && width > 0 && height < kMost && width < kMost,
                  "a feature map must have at least one pixel and less than 2^31 - 1 rows and "
                  "columns, got ",
                  height, " x ", width);
}

inline GatherShape forward_shape(const std::vector<Tensor>& features, const NodeTensors& nodes) {
  const Tensor& first = features[0];
  STD_TORCH_CHECK(first.dim() == 4, "features must have shape (B, H, W, C), got ",
                  shape_text(first));
  nodes.check(first);
  GatherShape shape{first.size(0),         first.size(3),       nodes.windows.size(0),
                    nodes.windows.size(1), nodes.level.size(0), {}};
  for (const Tensor& feature : features) {
    STD_TORCH_CHECK(feature.dim() == 4, "features must have shape (B, H, W, C), got ",
                    shape_text(feature));
    check_shape(feature, "features",
                {shape.images, feature.size(1), feature.size(2), shape.channels});
    check_same_device(feature, "features", first, "the first");
    STD_TORCH_CHECK(feature.scalar_type() == first.scalar_type(),
                    "features must all have the same dtype");
    check_map_size(feature.size(1), feature.size(2));
    shape.maps.push_back({feature.size(1), feature.size(2)});
  }
  return shape;
}

inline GatherShape backward_shape(const Tensor& grad_output, int64_t images,
                                  const std::vector<int64_t>& map_sizes, const NodeTensors& nodes) {
  STD_TORCH_CHECK(grad_output.dim() == 2, "grad_output must have shape (T, C), got ",
                  shape_text(grad_output));
  STD_TORCH_CHECK(images >= 0, "a negative number of images");
  STD_TORCH_CHECK(!map_sizes.empty() && map_sizes.size() % 2 == 0,
                  "map_sizes must hold (height, width) of at least one map");
  nodes.check(grad_output);
  check_shape(grad_output, "grad_output", {nodes.level.size(0), grad_output.size(1)});
  GatherShape shape{images,
                    grad_output.size(1),
                    nodes.windows.size(0),
                    nodes.windows.size(1),
                    nodes.level.size(0),
                    {}};
  for (size_t i = 0; i < map_sizes.size(); i += 2) {
    check_map_size(map_sizes[i], map_sizes[i + 1]);
    shape.maps.push_back({map_sizes[i], map_sizes[i + 1]});
  }
  return shape;
}

}  // namespace quadtree
}  // namespace queryseg
