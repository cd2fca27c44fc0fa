// CPU implementation of the operators queryseg::ms_deform_attn and ms_deform_attn_backward.

#include "ms_deform_attn/ms_deform_attn.h"

#include <algorithm>
#include <tuple>

#include "common/cpu/capability.h"
#include "common/tensor.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu/kernels.h"

namespace queryseg {
namespace {

// How a job is cut so that every thread gets the same share: by image, then by head.
struct HeadCut {
  int64_t per_image;  // parts
  bool even;

  HeadCut(const AttnShape& shape, int64_t threads) : per_image(1) {
    while (per_image < shape.heads && shape.batch * per_image % threads != 0) {
      ++per_image;
    }
    const int64_t parts = shape.batch * per_image;
    even = parts % threads == 0 || parts >= 4 * threads;
  }
};

// Packing the tokens pays where they are read more often than there are tokens.
bool worth_packing(const AttnShape& shape, const HeadCut& cut) {
  return cut.even && shape.queries * shape.points_per_head() >= shape.tokens;
}

template <typename Run>
void for_parts(const AttnShape& shape, const Run& run) {
  const HeadCut cut(shape, torch::stable::get_num_threads());
  if (worth_packing(shape, cut)) {
    torch::stable::parallel_for(0, shape.batch * cut.per_image, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % cut.per_image;
        run(Part{i / cut.per_image, 0, shape.queries, part * shape.heads / cut.per_image,
                 (part + 1) * shape.heads / cut.per_image, true});
      }
    });
    return;
  }
  const int64_t work = shape.heads * shape.points_per_head() * shape.channels;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(1, work));
  torch::stable::parallel_for(
      0, shape.batch * shape.queries, grain, [&](int64_t begin, int64_t end) {
        while (begin < end) {
          const int64_t image = begin / shape.queries;
          const int64_t first = begin - image * shape.queries;
          const int64_t last = std::min(end - image * shape.queries, shape.queries);
          run(Part{image, first, last, 0, shape.heads, false});
          begin += last - first;
        }
      });
}

template <typename Run>
void for_value_parts(const AttnShape& shape, const Run& run) {
  constexpr int64_t kLeastChannels = 16;
  const int64_t threads = torch::stable::get_num_threads();
  const HeadCut cut(shape, threads);
  const int64_t pieces =
      cut.even ? 1 : std::min(std::max<int64_t>(1, shape.channels / kLeastChannels), 4 * threads);
  torch::stable::parallel_for(
      0, shape.batch * cut.per_image * pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t piece = i % pieces;
          const int64_t part = i / pieces % cut.per_image;
          run(ValuePart{i / pieces / cut.per_image, part * shape.heads / cut.per_image,
                        (part + 1) * shape.heads / cut.per_image, piece * shape.channels / pieces,
                        (piece + 1) * shape.channels / pieces});
        }
      });
}

Tensor forward_cpu(const Tensor& value, std::vector<int64_t> spatial_shapes,
                   const Tensor& sampling_locations, const Tensor& attention_weights) {
  const AttnShape shape = shape_of(value, spatial_shapes, sampling_locations, attention_weights);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = torch::stable::contiguous(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor output =
      torch::stable::new_empty(value, {shape.batch, shape.queries, shape.heads * shape.channels});
  if (output.numel() == 0) {
    return output;
  }
  const ForwardArgs args{shape,
                         value_type(value),
                         values.const_data_ptr(),
                         {locations.const_data_ptr(), weights.const_data_ptr()},
                         output.mutable_data_ptr()};
  const MsDeformAttnKernels& kernels = QUERYSEG_SELECT(kMsDeformAttn);
  for_parts(shape, [&](const Part& part) { kernels.forward(args, part); });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& value,
                                                std::vector<int64_t> spatial_shapes,
                                                const Tensor& sampling_locations,
                                                const Tensor& attention_weights) {
  const AttnShape shape = shape_of(value, spatial_shapes, sampling_locations, attention_weights);
  check_grad_output(grad_output, value, shape);
  const Tensor grads = torch::stable::contiguous(grad_output);
  const Tensor values = torch::stable::contiguous(value);
  const Tensor locations = torch::stable::contiguous(sampling_locations);
  const Tensor weights = torch::stable::contiguous(attention_weights);
  const Tensor grad_value = torch::stable::new_empty(value, value.sizes());
  const Tensor grad_locations = torch::stable::new_empty(locations, locations.sizes());
  const Tensor grad_weights = torch::stable::new_empty(weights, weights.sizes());
  const BackwardArgs args{shape,
                          value_type(value),
                          values.const_data_ptr(),
                          grads.const_data_ptr(),
                          {locations.const_data_ptr(), weights.const_data_ptr()},
                          {grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr()},
                          grad_value.mutable_data_ptr()};
  const MsDeformAttnKernels& kernels = QUERYSEG_SELECT(kMsDeformAttn);
  if (weights.numel() > 0) {
    for_parts(shape, [&](const Part& part) { kernels.backward_points(args, part); });
  }
  if (value.numel() > 0) {
    for_value_parts(shape, [&](const ValuePart& part) { kernels.backward_value(args, part); });
  }
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(queryseg, CPU, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&forward_cpu));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace queryseg
