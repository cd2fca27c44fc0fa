// CUDA implementation of the operators queryseg::quadtree_gather and quadtree_gather_backward.

#include "common/cuda/tensor.h"
#include "quadtree/arguments.h"
#include "quadtree/cuda/launch.h"

namespace queryseg {
namespace {

using quadtree::GatherShape;
using quadtree::NodeTensors;

void check_limits(const GatherShape& shape) {
  STD_TORCH_CHECK(static_cast<int64_t>(shape.maps.size()) <= kMostMapsOnCuda, "at most ",
                  kMostMapsOnCuda, " feature maps on CUDA, got ", shape.maps.size());
  STD_TORCH_CHECK(shape.channels < (int64_t{1} << 30), "2^30 channels or more");
}

Tensor forward_cuda(std::vector<Tensor> features, const Tensor& windows, const Tensor& bins,
                    const Tensor& node_index, const Tensor& node_level) {
  STD_TORCH_CHECK(!features.empty(), "at least one feature map is needed");
  const DeviceGuard guard(features[0].get_device_index());
  const NodeTensors nodes(windows, bins, node_index, node_level);
  const GatherShape shape = quadtree::forward_shape(features, nodes);
  check_limits(shape);
  const Tensor output = torch::stable::new_empty(features[0], {shape.nodes, shape.channels});
  quadtree::ForwardArgs args{shape, quadtree::number_type(output), nodes.inputs(), {}, nullptr};
  args.output = output.mutable_data_ptr();
  for (Tensor& feature : features) {
    feature = torch::stable::contiguous(feature);
    args.maps.push_back(feature.const_data_ptr());
  }
  if (output.numel() > 0) {
    STD_CUDA_CHECK(quadtree_gather_cuda(args, current_stream(output)));
  }
  return output;
}

std::vector<Tensor> backward_cuda(const Tensor& grad_output, int64_t images,
                                  std::vector<int64_t> map_sizes, const Tensor& windows,
                                  const Tensor& bins, const Tensor& node_index,
                                  const Tensor& node_level) {
  const DeviceGuard guard(grad_output.get_device_index());
  const NodeTensors nodes(windows, bins, node_index, node_level);
  const GatherShape shape = quadtree::backward_shape(grad_output, images, map_sizes, nodes);
  check_limits(shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  quadtree::BackwardArgs args{
      shape, quadtree::number_type(grads), nodes.inputs(), grads.const_data_ptr(), {}};
  // Summed in the compute type: atomics in half precision would lose small addends.
  std::vector<Tensor> result;
  for (const quadtree::MapSize& map : shape.maps) {
    result.push_back(torch::stable::new_zeros(
        grads, {images, map.height, map.width, shape.channels}, quadtree::window_type(grads)));
    args.grad_maps.push_back(result.back().mutable_data_ptr());
  }
  if (grads.numel() > 0) {
    STD_CUDA_CHECK(quadtree_gather_backward_cuda(args, current_stream(grads)));
  }
  for (Tensor& grad : result) {
    grad = torch::stable::to(grad, grads.scalar_type());
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  library.impl("quadtree_gather", TORCH_BOX(&forward_cuda));
  library.impl("quadtree_gather_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace queryseg
