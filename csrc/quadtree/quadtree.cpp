// The sparse RoIAlign operators on the CPU.

#include "quadtree/quadtree.h"

#include <algorithm>

#include "common/cpu/capability.h"
#include "common/cpu/new_result.h"
#include "quadtree/cpu/kernels.h"
#include "quadtree/operators.h"

namespace queryseg {
namespace quadtree {
namespace {

struct CpuBackend {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  static Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
    return queryseg::new_result(like, sizes);
  }

  // The kernels follow these numbers without a further look.
  static void check(const GatherShape& shape, const NodeInputs& nodes) {
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

  static void forward(const ForwardArgs& args, const Tensor&) {
    const Kernels& kernels = QUERYSEG_SELECT(kQuadtree);
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 14) / args.shape.channels);
    torch::stable::parallel_for(0, args.shape.nodes, grain, [&](int64_t begin, int64_t end) {
      kernels.forward(args, begin, end);
    });
  }

  static void backward(const BackwardArgs& args, const Tensor&) {
    const Kernels& kernels = QUERYSEG_SELECT(kQuadtree);
    constexpr int64_t kLeastChannels = 16;
    const int64_t channels = args.shape.channels;
    const int64_t pieces =
        std::clamp<int64_t>(channels / kLeastChannels, 1, torch::stable::get_num_threads());
    torch::stable::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
      kernels.backward(args, begin * channels / pieces, end * channels / pieces);
    });
  }
};

}  // namespace
}  // namespace quadtree

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  using Cpu = quadtree::Operators<quadtree::CpuBackend>;
  library.impl("quadtree_gather", TORCH_BOX(&Cpu::forward));
  library.impl("quadtree_gather_backward", TORCH_BOX(&Cpu::backward));
}

}  // namespace queryseg
