// The dynamic convolution operators on the CPU.

#include "dynamic_conv/dynamic_conv.h"

#include "common/cpu/capability.h"
#include "common/cpu/new_result.h"
#include "dynamic_conv/cpu/kernels.h"
#include "dynamic_conv/operators.h"

namespace queryseg {
namespace dynamic_conv {
namespace {

struct CpuBackend {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  static void check(const Inputs&) {}

  static Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
    return queryseg::new_result(like, sizes);
  }

  static void forward(const Forward& call, const Tensor&) {
    const Kernels& kernels = QUERYSEG_SELECT(kDynamicConv);
    const Shape& shape = call.inputs.shape;
    torch::stable::parallel_for(
        0, shape.instances, grain_size(shape),
        [&](int64_t begin, int64_t end) { kernels.forward(call, begin, end); });
  }

  static void backward(const Backward& call, const Tensor&) {
    const Kernels& kernels = QUERYSEG_SELECT(kDynamicConv);
    const Shape& shape = call.inputs.shape;
    torch::stable::parallel_for(
        0, shape.instances, grain_size(shape),
        [&](int64_t begin, int64_t end) { kernels.backward(call, begin, end); });
  }

 private:
  // Instances whose work is worth a thread.
  static int64_t grain_size(const Shape& shape) {
    constexpr int64_t kProducts = int64_t{1} << 17;
    return std::max<int64_t>(1, kProducts / (shape.positions * shape.instance_weights()));
  }
};

}  // namespace
}  // namespace dynamic_conv

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  using Cpu = dynamic_conv::Operators<dynamic_conv::CpuBackend>;
  library.impl("dynamic_conv", TORCH_BOX(&Cpu::forward));
  library.impl("dynamic_conv_backward", TORCH_BOX(&Cpu::backward));
}

}  // namespace queryseg
