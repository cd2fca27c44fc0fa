// CPU implementation of the operators queryseg::quadtree_gather and quadtree_gather_backward.

#include "quadtree/quadtree.h"

#include <algorithm>

#include "common/cpu/capability.h"
#include "common/tensor.h"
#include "quadtree/arguments.h"
#include "quadtree/cpu/kernels.h"

namespace queryseg {
namespace {

using quadtree::GatherShape;
using quadtree::NodeInputs;
using quadtree::NodeTensors;

// The kernels follow these numbers without a further look.
void check_numbers(const GatherShape& shape, const NodeInputs& nodes) {
  const auto maps = static_cast<int64_t>(shape.maps.size());
  for (int64_t i = 0; i < shape.instances * shape.levels; ++i) {
    const int64_t* bin = nodes.bins + 4 * i;
    STD_TORCH_CHECK(bin[0] >= 0 && bin[0] < shape.images, "a box lies in image ", bin[0],
                    ", but there are ", shape.images);
    STD_TORCH_CHECK(bin[1] >= 0 && bin[1] < maps, "a box is pooled from feature map ", bin[1],
                    ", but there are ", maps);
  }
  for (int64_t node = 0; node < shape.nodes; ++node) {
    const int64_t instance = nodes.index[3 * node];
    STD_TORCH_CHECK(instance >= 0 && instance < shape.instances, "node ", node,
                    " belongs to instance ", instance, ", but there are ", shape.instances);
    STD_TORCH_CHECK(nodes.level[node] >= 0 && nodes.level[node] < shape.levels, "node ", node,
                    " lies on level ", nodes.level[node], ", but there are ", shape.levels);
  }
}

Tensor forward_cpu(std::vector<Tensor> features, const Tensor& windows, const Tensor& bins,
                   const Tensor& node_index, const Tensor& node_level) {
  const NodeTensors nodes(windows, bins, node_index, node_level);
  const GatherShape shape = quadtree::forward_shape(features, nodes);
  check_numbers(shape, nodes.inputs());
  const Tensor output = torch::stable::new_empty(features[0], {shape.nodes, shape.channels});
  quadtree::ForwardArgs args{shape, quadtree::number_type(output), nodes.inputs(), {}, nullptr};
  args.output = output.mutable_data_ptr();
  for (Tensor& feature : features) {
    feature = torch::stable::contiguous(feature);
    args.maps.push_back(feature.const_data_ptr());
  }
  const quadtree::Kernels& kernels = QUERYSEG_SELECT(kQuadtree);
  if (output.numel() > 0) {
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 14) / shape.channels);
    torch::stable::parallel_for(0, shape.nodes, grain, [&](int64_t begin, int64_t end) {
      kernels.forward(args, begin, end);
    });
  }
  return output;
}

std::vector<Tensor> backward_cpu(const Tensor& grad_output, int64_t images,
                                 std::vector<int64_t> map_sizes, const Tensor& windows,
                                 const Tensor& bins, const Tensor& node_index,
                                 const Tensor& node_level) {
  const NodeTensors nodes(windows, bins, node_index, node_level);
  const GatherShape shape = quadtree::backward_shape(grad_output, images, map_sizes, nodes);
  check_numbers(shape, nodes.inputs());
  const Tensor grads = torch::stable::contiguous(grad_output);
  quadtree::BackwardArgs args{
      shape, quadtree::number_type(grads), nodes.inputs(), grads.const_data_ptr(), {}};
  // Summed in the compute type: half precision would lose small addends.
  std::vector<Tensor> result;
  for (const quadtree::MapSize& map : shape.maps) {
    result.push_back(torch::stable::new_zeros(
        grads, {images, map.height, map.width, shape.channels}, quadtree::window_type(grads)));
    args.grad_maps.push_back(result.back().mutable_data_ptr());
  }
  const quadtree::Kernels& kernels = QUERYSEG_SELECT(kQuadtree);
  constexpr int64_t kLeastChannels = 16;
  const int64_t pieces =
      std::clamp<int64_t>(shape.channels / kLeastChannels, 1, torch::stable::get_num_threads());
  if (grads.numel() > 0) {
    torch::stable::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
      kernels.backward(args, begin * shape.channels / pieces, end * shape.channels / pieces);
    });
  }
  for (Tensor& grad : result) {
    grad = torch::stable::to(grad, grads.scalar_type());
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("quadtree_gather", TORCH_BOX(&forward_cpu));
  library.impl("quadtree_gather_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
