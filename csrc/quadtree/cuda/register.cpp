// The sparse RoIAlign operators on CUDA.

#include "common/cuda/tensor.h"
#include "quadtree/cuda/launch.h"
#include "quadtree/operators.h"

namespace queryseg {
namespace quadtree {
namespace {

struct CudaBackend {
  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    DeviceGuard guard;
  };

  static Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
    return torch::stable::new_empty(like, sizes);
  }

  // Nodes that point nowhere are the kernels' matter: looking at them here would stop the device.
  static void check(const GatherShape& shape, const NodeInputs&) {
    STD_TORCH_CHECK(static_cast<int64_t>(shape.maps.size()) <= kMostMapsOnCuda, "at most ",
                    kMostMapsOnCuda, " feature maps on CUDA, got ", shape.maps.size());
    STD_TORCH_CHECK(shape.channels < (int64_t{1} << 30), "2^30 channels or more");
  }

  static void forward(const ForwardArgs& args, const Tensor& output) {
    STD_CUDA_CHECK(quadtree_gather_cuda(args, current_stream(output)));
  }

  static void backward(const BackwardArgs& args, const Tensor& grads) {
    STD_CUDA_CHECK(quadtree_gather_backward_cuda(args, current_stream(grads)));
  }
};

}  // namespace
}  // namespace quadtree

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  using Cuda = quadtree::Operators<quadtree::CudaBackend>;
  library.impl("quadtree_gather", TORCH_BOX(&Cuda::forward));
  library.impl("quadtree_gather_backward", TORCH_BOX(&Cuda::backward));
}

}  // namespace queryseg
