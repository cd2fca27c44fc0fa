// The operators queryseg::quadtree_gather and quadtree_gather_backward, once for all devices.
//
// A backend says how a device runs them:
//   Guard       a type whose constructor makes the tensor's device the current one
//   new_result  allocates a tensor of these sizes that a kernel will fill
//   check       refuses what its kernels cannot do, before anything is computed
//   forward, backward  run the kernels on arrays of at least one element
#pragma once

#include <utility>

#include "common/tensor.h"
#include "quadtree/arguments.h"

namespace queryseg {
namespace quadtree {

template <typename Backend>
struct Operators {
  static Tensor forward(std::vector<Tensor> features, const Tensor& windows, const Tensor& bins,
                        const Tensor& node_index, const Tensor& node_level) {
    STD_TORCH_CHECK(!features.empty(), "at least one feature map is needed");
    const typename Backend::Guard guard(features[0]);
    const NodeTensors nodes(windows, bins, node_index, node_level);
    const GatherShape shape = forward_shape(features, nodes);
    Backend::check(shape, nodes.inputs());
    const Tensor output = Backend::new_result(features[0], {shape.nodes, shape.channels});
    ForwardArgs args{shape, value_type(output), nodes.inputs(), {}, output.mutable_data_ptr()};
    for (Tensor& feature : features) {
      feature = torch::stable::contiguous(feature);
      args.maps.push_back(feature.const_data_ptr());
    }
    if (output.numel() > 0) {
      Backend::forward(args, output);
    }
    return output;
  }

  static std::vector<Tensor> backward(const Tensor& grad_output, int64_t images,
                                      std::vector<int64_t> map_sizes, const Tensor& windows,
                                      const Tensor& bins, const Tensor& node_index,
                                      const Tensor& node_level) {
    const typename Backend::Guard guard(grad_output);
    const NodeTensors nodes(windows, bins, node_index, node_level);
    const GatherShape shape = backward_shape(grad_output, images, map_sizes, nodes);
    Backend::check(shape, nodes.inputs());
    const Tensor grads = torch::stable::contiguous(grad_output);
    BackwardArgs args{shape, value_type(grads), nodes.inputs(), grads.const_data_ptr(), {}};
    // Summed in the compute type: half precision would lose small addends.
    std::vector<Tensor> result;
    for (const MapSize& map : shape.maps) {
      result.push_back(torch::stable::new_zeros(
          grads, {images, map.height, map.width, shape.channels}, compute_type(grads)));
      args.grad_maps.push_back(result.back().mutable_data_ptr());
    }
    if (grads.numel() > 0) {
      Backend::backward(args, grads);
    }
    for (Tensor& grad : result) {
      grad = torch::stable::to(grad, grads.scalar_type());
    }
    return result;
  }
};

}  // namespace quadtree
}  // namespace queryseg
