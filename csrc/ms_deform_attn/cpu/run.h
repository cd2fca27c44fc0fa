// Runs the CPU kernels on all threads. How a job is cut decides what one thread has to itself.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "common/cpu/capability.h"
#include "ms_deform_attn/cpu/kernels.h"
#include "ms_deform_attn/cpu/query_order.h"

namespace queryseg {

// Parts of an image's heads such that every thread gets the same share.
struct HeadCut {
  int64_t per_image;  // parts
  bool even;

  HeadCut(const AttnShape& shape, int64_t threads) : per_image(1) {
    // More heads in a part would need more scratch memory and be no faster.
    constexpr int64_t kMostHeads = 2;
    while (per_image < shape.heads &&
           (shape.batch * per_image % threads != 0 || shape.heads > kMostHeads * per_image)) {
      ++per_image;
    }
    const int64_t parts = shape.batch * per_image;
    even = parts % threads == 0 || parts >= 4 * threads;
  }
};

// All queries, some heads.
template <typename Run>
void for_head_parts(const AttnShape& shape, const HeadCut& cut, const QueryOrder& order,
                    const Run& run) {
  torch::stable::parallel_for(0, shape.batch * cut.per_image, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / cut.per_image;
      const int64_t part = i % cut.per_image;
      run(Part{image, 0, shape.queries, part * shape.heads / cut.per_image,
               (part + 1) * shape.heads / cut.per_image, dense(shape), order.of_image(image)});
    }
  });
}

// Some queries, all heads.
template <typename Run>
void for_query_parts(const AttnShape& shape, const QueryOrder& order, const Run& run) {
  const int64_t work = shape.heads * shape.points_per_head() * shape.channels;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(1, work));
  torch::stable::parallel_for(
      0, shape.batch * shape.queries, grain, [&](int64_t begin, int64_t end) {
        while (begin < end) {
          const int64_t image = begin / shape.queries;
          const int64_t first = begin - image * shape.queries;
          const int64_t last = std::min(end - image * shape.queries, shape.queries);
          run(Part{image, first, last, 0, shape.heads, false, order.of_image(image)});
          begin += last - first;
        }
      });
}

// All queries, some heads, and where these are too few for the threads some channels of each.
template <typename Run>
void for_value_parts(const AttnShape& shape, const HeadCut& cut, const QueryOrder& order,
                     bool in_place, const Run& run) {
  constexpr int64_t kLeastChannels = 16;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t pieces =
      cut.even ? 1 : std::min(std::max<int64_t>(1, shape.channels / kLeastChannels), 4 * threads);
  torch::stable::parallel_for(
      0, shape.batch * cut.per_image * pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t piece = i % pieces;
          const int64_t part = i / pieces % cut.per_image;
          const int64_t image = i / pieces / cut.per_image;
          run(ValuePart{image, part * shape.heads / cut.per_image,
                        (part + 1) * shape.heads / cut.per_image, piece * shape.channels / pieces,
                        (piece + 1) * shape.channels / pieces, in_place, order.of_image(image)});
        }
      });
}

// Zero-fills memory on all threads.
inline void clear(void* data, int64_t bytes) {
  constexpr int64_t kGrain = int64_t{1} << 18;
  torch::stable::parallel_for(0, bytes, kGrain, [&](int64_t begin, int64_t end) {
    std::memset(static_cast<char*>(data) + begin, 0, static_cast<size_t>(end - begin));
  });
}

inline void run_forward(const ForwardArgs& args) {
  const MsDeformAttnKernels& kernels = QUERYSEG_SELECT(kMsDeformAttn);
  const HeadCut cut(args.shape, torch::stable::get_num_threads());
  const QueryOrder order(args.shape, args.type, args.points);
  const auto run = [&](const Part& part) { kernels.forward(args, part); };
  if (cut.even && dense(args.shape)) {
    for_head_parts(args.shape, cut, order, run);
  } else {
    for_query_parts(args.shape, order, run);
  }
}

// Fills the gradients of the points and of the value, in one walk where possible. Where points are
// few, the gradient of the value is summed in place if it has the type of the sums, which saves a
// second pass over the tokens.
inline void run_backward(const BackwardArgs& args) {
  const MsDeformAttnKernels& kernels = QUERYSEG_SELECT(kMsDeformAttn);
  const AttnShape& shape = args.shape;
  if (shape.heads == 0) {
    return;  // no gradient has an element
  }
  const int64_t size = shape.batch * shape.tokens * shape.heads * shape.channels;
  const HeadCut cut(shape, torch::stable::get_num_threads());
  const QueryOrder order(shape, args.type, args.points);
  const bool wide = args.type == ValueType::kFloat || args.type == ValueType::kDouble;
  const bool in_place = wide && !dense(shape);
  if (in_place) {
    clear(args.grad_value, size * (args.type == ValueType::kFloat ? 4 : 8));
  }
  if (cut.even && (in_place || dense(shape))) {
    for_head_parts(shape, cut, order, [&](const Part& part) { kernels.backward(args, part); });
    return;
  }
  if (shape.batch * shape.queries * shape.heads > 0) {
    for_query_parts(shape, order, [&](const Part& part) { kernels.backward_points(args, part); });
  }
  if (size > 0) {
    for_value_parts(shape, cut, order, in_place,
                    [&](const ValuePart& part) { kernels.backward_value(args, part); });
  }
}

}  // namespace queryseg
