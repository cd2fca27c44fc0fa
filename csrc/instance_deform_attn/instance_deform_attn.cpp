// CPU implementation of the operators queryseg::instance_deform_attn and its backward.

#include "instance_deform_attn/instance_deform_attn.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <tuple>

#include "common/cpu/capability.h"
#include "common/cpu/scratch.h"
#include "common/tensor.h"
#include "instance_deform_attn/arguments.h"
#include "instance_deform_attn/cpu/kernels.h"
#include "instance_deform_attn/cpu/maps.h"

namespace queryseg {
namespace {

void check_indices(const InstanceInputs& inputs) {
  const InstanceShape& shape = inputs.shape;
  for (int64_t n = 0; inputs.image_index && n < shape.instances; ++n) {
    const int64_t image = inputs.image_index[n];
    STD_TORCH_CHECK(image >= 0 && image < shape.batch, "image_index[", n, "] is ", image,
                    ", but mask_feats hold ", shape.batch, " images");
  }
  for (int64_t b = 0; inputs.valid_sizes && b < shape.batch; ++b) {
    const ValidSize valid(inputs, b);
    STD_TORCH_CHECK(valid.height >= 0 && valid.height <= shape.height && valid.width >= 0 &&
                        valid.width <= shape.width,
                    "valid_sizes[", b, "] is ", valid.height, " x ", valid.width,
                    ", but the map is ", shape.height, " x ", shape.width);
  }
}

// The copies of all images' maps that the kernel works on.
template <typename A>
struct PackedMaps {
  MapLayout layout;
  Scratch<A> query, value;

  explicit PackedMaps(const InstanceInputs& inputs)
      : layout(inputs.shape),
        query(inputs.shape.batch * layout.query_size),
        value(inputs.shape.batch * layout.value_size) {
    torch::stable::parallel_for(0, inputs.shape.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) {
        pack_maps(inputs, image, query.get() + image * layout.query_size,
                  value.get() + image * layout.value_size);
      }
    });
  }
};

template <typename A>
void run_forward(const InstanceInputs& inputs, const Tensor& output) {
  const InstanceShape& shape = inputs.shape;
  const PackedMaps<A> maps(inputs);
  const InstanceForward args{inputs, maps.query.get(), maps.value.get(), output.mutable_data_ptr()};
  const InstanceDeformAttnKernels& kernels = QUERYSEG_SELECT(kInstanceDeformAttn);
  const int64_t work = shape.width * shape.heads * shape.points * shape.channels;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / work);
  torch::stable::parallel_for(
      0, shape.instances * shape.height, grain,
      [&](int64_t begin, int64_t end) { kernels.forward(args, begin, end); });
}

// The instances, image by image.
std::vector<int64_t> order_by_image(const InstanceInputs& inputs) {
  std::vector<int64_t> order(static_cast<size_t>(inputs.shape.instances));
  std::iota(order.begin(), order.end(), 0);
  if (inputs.image_index) {
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return inputs.image_index[a] < inputs.image_index[b];
    });
  }
  return order;
}

// One thread's share of the backward pass. Every share is summed in the order of its rows, and the
// shares in their order, so that the result depends on the number of threads only.
template <typename A>
struct Share {
  int64_t first_row, last_row;
  int64_t first_instance, instances;  // positions in the order
  int64_t first_image, images;
  Scratch<A> query, slots, weights;

  Share(const InstanceInputs& inputs, const std::vector<int64_t>& order, int64_t first,
        int64_t last)
      : first_row(first),
        last_row(last),
        first_instance(first / inputs.shape.height),
        instances((last - 1) / inputs.shape.height + 1 - first_instance),
        first_image(image_at(inputs, order, first_instance)),
        images(image_at(inputs, order, first_instance + instances - 1) + 1 - first_image),
        query(images * MapLayout(inputs.shape).query_size),
        slots(images * MapLayout(inputs.shape).slots_size()),
        weights(instances * inputs.shape.dynamic_weights()) {}

  static int64_t image_at(const InstanceInputs& inputs, const std::vector<int64_t>& order,
                          int64_t position) {
    return inputs.image_index ? inputs.image_index[order[static_cast<size_t>(position)]] : 0;
  }
};

template <typename A>
using Shares = std::vector<std::unique_ptr<Share<A>>>;

// Adds up the shares' gradients.
template <typename A>
void collect(const InstanceInputs& inputs, const std::vector<int64_t>& order,
             const Shares<A>& shares, A* grad_feats, A* grad_weights) {
  const InstanceShape& shape = inputs.shape;
  const MapLayout layout(shape);
  torch::stable::parallel_for(0, shape.batch * shape.height, 16, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t image = at / shape.height;
      for (const auto& share : shares) {
        const int64_t local = image - share->first_image;
        if (local >= 0 && local < share->images) {
          add_map_grads(inputs, image, at % shape.height,
                        share->query.get() + local * layout.query_size,
                        share->slots.get() + local * layout.slots_size(), grad_feats);
        }
      }
    }
  });
  const int64_t count = shape.dynamic_weights();
  for (const auto& share : shares) {
    for (int64_t i = 0; i < share->instances; ++i) {
      A* to = grad_weights + order[static_cast<size_t>(share->first_instance + i)] * count;
      for (int64_t j = 0; j < count; ++j) {
        to[j] += share->weights.get()[i * count + j];
      }
    }
  }
}

// The gradients must be zero.
template <typename A>
void run_backward(const InstanceInputs& inputs, const Tensor& grad_output, const Tensor& grad_feats,
                  const Tensor& grad_weights) {
  const InstanceShape& shape = inputs.shape;
  const PackedMaps<A> maps(inputs);
  const std::vector<int64_t> order = order_by_image(inputs);
  const InstanceBackward args{inputs, maps.query.get(), maps.value.get(),
                              grad_output.const_data_ptr(), order.data()};
  const InstanceDeformAttnKernels& kernels = QUERYSEG_SELECT(kInstanceDeformAttn);
  const int64_t rows = shape.instances * shape.height;
  const int64_t count = std::min<int64_t>(torch::stable::get_num_threads(), rows);
  Shares<A> shares;
  for (int64_t i = 0; i < count; ++i) {
    shares.push_back(
        std::make_unique<Share<A>>(inputs, order, i * rows / count, (i + 1) * rows / count));
  }
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Share<A>& share = *shares[static_cast<size_t>(i)];
      std::fill_n(share.query.get(), share.images * maps.layout.query_size, A(0));
      std::fill_n(share.slots.get(), share.images * maps.layout.slots_size(), A(0));
      kernels.backward(args, InstanceRun{share.first_row, share.last_row, share.query.get(),
                                         share.slots.get(), share.weights.get()});
    }
  });
  collect(inputs, order, shares, static_cast<A*>(grad_feats.mutable_data_ptr()),
          static_cast<A*>(grad_weights.mutable_data_ptr()));
}

Tensor forward_cpu(const Tensor& mask_feats, const Tensor& dynamic_weights, const Tensor& row_codes,
                   const Tensor& column_codes, std::optional<Tensor> image_index,
                   std::optional<Tensor> valid_sizes, int64_t heads, int64_t points) {
  const InstanceTensors tensors(mask_feats, dynamic_weights, row_codes, column_codes, image_index,
                                valid_sizes, heads, points);
  const InstanceInputs inputs = tensors.inputs();
  check_indices(inputs);
  const InstanceShape& shape = tensors.shape;
  const Tensor output =
      torch::stable::new_empty(tensors.mask_feats, {shape.instances, shape.height, shape.width});
  if (output.numel() > 0) {
    inputs.is_double ? run_forward<double>(inputs, output) : run_forward<float>(inputs, output);
  }
  return output;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& mask_feats,
                                        const Tensor& dynamic_weights, const Tensor& row_codes,
                                        const Tensor& column_codes,
                                        std::optional<Tensor> image_index,
                                        std::optional<Tensor> valid_sizes, int64_t heads,
                                        int64_t points) {
  const InstanceTensors tensors(mask_feats, dynamic_weights, row_codes, column_codes, image_index,
                                valid_sizes, heads, points);
  tensors.check_grad_output(grad_output);
  const InstanceInputs inputs = tensors.inputs();
  check_indices(inputs);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor grad_feats =
      torch::stable::new_zeros(tensors.mask_feats, tensors.mask_feats.sizes());
  const Tensor grad_weights =
      torch::stable::new_zeros(tensors.dynamic_weights, tensors.dynamic_weights.sizes());
  if (grads.numel() > 0) {
    inputs.is_double ? run_backward<double>(inputs, grads, grad_feats, grad_weights)
                     : run_backward<float>(inputs, grads, grad_feats, grad_weights);
  }
  return {torch::stable::to(grad_feats, mask_feats.scalar_type()), grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("instance_deform_attn", TORCH_BOX(&forward_cpu));
  library.impl("instance_deform_attn_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
