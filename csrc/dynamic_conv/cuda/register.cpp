// The dynamic convolution operators on CUDA.

#include "common/cuda/tensor.h"
#include "dynamic_conv/cuda/launch.h"
#include "dynamic_conv/operators.h"

namespace queryseg {
namespace dynamic_conv {
namespace {

struct CudaBackend {
  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    DeviceGuard guard;
  };

  static void check(const Inputs& inputs) {
    STD_TORCH_CHECK(fits_cuda(inputs), "the channels of a position, ", inputs.shape.channels,
                    " and d = ", inputs.shape.inner,
                    ", must fit 64 KiB of shared memory on CUDA: C + 2 d below 14,000 or, in "
                    "float64, 6,000");
  }

  static Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
    return torch::stable::new_empty(like, sizes);
  }

  static void forward(const Forward& call, const Tensor& output) {
    STD_CUDA_CHECK(forward_cuda(call, current_stream(output)));
  }

  static void backward(const Backward& call, const Tensor& grads) {
    const Tensor scratch =
        torch::stable::new_empty(grads, {cuda_scratch_bytes(call.inputs)}, ScalarType::Byte);
    STD_CUDA_CHECK(backward_cuda(call, scratch.mutable_data_ptr(), current_stream(grads)));
  }
};

}  // namespace
}  // namespace dynamic_conv

STABLE_TORCH_LIBRARY_IMPL(queryseg, CUDA, library) {
  using Cuda = dynamic_conv::Operators<dynamic_conv::CudaBackend>;
  library.impl("dynamic_conv", TORCH_BOX(&Cuda::forward));
  library.impl("dynamic_conv_backward", TORCH_BOX(&Cuda::backward));
}

}  // namespace queryseg
