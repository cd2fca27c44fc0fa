// The baseline as operators of the namespace `queryseg_baseline`, compiled by the benchmark alone.

#include "ms_deform_attn.cuh"

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

namespace {

using torch::stable::Tensor;

constexpr int kChannels = 32;  // of a head in all cases of the benchmark

baseline::Sizes sizes_of(const Tensor& value, const Tensor& locations) {
  STD_TORCH_CHECK(value.numel() < (int64_t{1} << 31) && locations.numel() < (int64_t{1} << 31),
                  "the baseline counts in 32 bits");
  return {static_cast<int>(value.size(0)),     static_cast<int>(value.size(1)),
          static_cast<int>(locations.size(1)), static_cast<int>(value.size(2)),
          static_cast<int>(value.size(3)),     static_cast<int>(locations.size(3)),
          static_cast<int>(locations.size(4))};
}

cudaStream_t stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream);
  return static_cast<cudaStream_t>(stream);
}

template <typename T>
const T* read(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

float* write(const Tensor& tensor) {
  return static_cast<float*>(tensor.mutable_data_ptr());
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, cudaGetErrorString(error));
}

Tensor forward(const Tensor& value, const Tensor& shapes, const Tensor& starts,
               const Tensor& locations, const Tensor& weights) {
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const baseline::Sizes sizes = sizes_of(value, locations);
  const Tensor output =
      torch::stable::new_empty(value, {sizes.batch, sizes.queries, sizes.heads * sizes.channels});
  constexpr int kThreads = baseline::kForwardThreads;
  const int64_t blocks = (output.numel() + kThreads - 1) / kThreads;
  baseline::forward<<<static_cast<unsigned int>(blocks), kThreads, 0, stream_of(value)>>>(
      sizes, read<float>(value), read<long long>(shapes), read<long long>(starts),
      read<float>(locations), read<float>(weights), write(output));
  check_launch();
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value,
                                            const Tensor& shapes, const Tensor& starts,
                                            const Tensor& locations, const Tensor& weights) {
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const baseline::Sizes sizes = sizes_of(value, locations);
  const Tensor grad_value = torch::stable::new_zeros(value, value.sizes());
  const Tensor grad_locations = torch::stable::new_zeros(locations, locations.sizes());
  const Tensor grad_weights = torch::stable::new_zeros(weights, weights.sizes());
  const int rows = sizes.batch * sizes.queries * sizes.heads;
  STD_TORCH_CHECK(sizes.channels == kChannels, "the baseline knows heads of 32 channels only");
  baseline::backward<kChannels>
      <<<static_cast<unsigned int>(rows), kChannels, 0, stream_of(value)>>>(
          sizes, read<float>(grad_output), read<float>(value), read<long long>(shapes),
          read<long long>(starts), read<float>(locations), read<float>(weights), write(grad_value),
          write(grad_locations), write(grad_weights));
  check_launch();
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY(queryseg_baseline, library) {
  library.def(
      "ms_deform_attn(Tensor value, Tensor shapes, Tensor starts, Tensor locations, "
      "Tensor weights) -> Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor shapes, Tensor starts, "
      "Tensor locations, Tensor weights) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(queryseg_baseline, CUDA, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&forward));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&backward));
}
