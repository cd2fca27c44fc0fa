// CPU kernel of multi-scale deformable attention, compiled once per instruction set.
//
// For each query, first the cells and corner weights of its points are computed, vectorised over
// the points; then the D channels of every corner are gathered, vectorised over the channels.
//
// Corners off the map are never read, so that a NaN or an infinity stored at the border cannot leak
// into points that do not touch it.
#pragma once

#include "ms_deform_attn/cpu/corner_gradients.h"
#include "ms_deform_attn/cpu/fused_source.h"
#include "ms_deform_attn/cpu/gather.h"
#include "ms_deform_attn/cpu/plain_source.h"
#include "ms_deform_attn/cpu/value_sums.h"
#include "ms_deform_attn/cpu/value_view.h"
#include "ms_deform_attn/cpu/walk.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Inputs and gradients must outlive the source; without gradients, it cannot write any.
template <typename A>
std::unique_ptr<PointSource<A>> source_of(const AttnShape& shape, const PointTables<A>& tables,
                                          const PointInputs& inputs, const PointGrads* grads) {
  static const PlainGrads kNoPlainGrads{};
  static const FusedGrads kNoFusedGrads{};
  if (const auto* plain = std::get_if<PlainInputs>(&inputs)) {
    return std::make_unique<PlainSource<A>>(shape, tables, *plain,
                                            grads ? std::get<PlainGrads>(*grads) : kNoPlainGrads);
  }
  return std::make_unique<FusedSource<A>>(shape, tables, std::get<FusedInputs>(inputs),
                                          grads ? std::get<FusedGrads>(*grads) : kNoFusedGrads);
}

template <typename T, typename A>
void forward_part(const ForwardArgs& args, const Part& part) {
  const AttnShape& shape = args.shape;
  const ValueView<T> value(shape, args.value, part);
  const PointTables<A> tables(shape, value.layout.token_step,
                              part.pack ? 1 : part.last_head - part.first_head);
  const auto source = source_of<A>(shape, tables, args.points, nullptr);
  Points<A> points(tables);
  std::vector<A> sums(shape.channels);
  for_batches(shape, part, *source, tables, points, false, [&](const BatchRow& row) {
    const T* tokens = value.first_head + row.head * value.layout.head_step;
    T* result = static_cast<T*>(args.output) + row.number * shape.channels;
    if constexpr (std::is_same_v<T, A>) {
      Gather<T, A> gather{tables, points, tokens, row.start, result};
      for_channel_runs<A>(shape.channels, gather);
    } else {
      Gather<T, A> gather{tables, points, tokens, row.start, sums.data()};
      for_channel_runs<A>(shape.channels, gather);
      narrow_all(sums.data(), shape.channels, result);
    }
  });
}

// The gradients of the points of a part; with kValue, also of its heads of the value, whose sums
// lie as the tokens do: packed, or in place.
template <bool kValue, typename T, typename A>
void backward_points_part(const BackwardArgs& args, const Part& part) {
  const AttnShape& shape = args.shape;
  const ValueView<T> value(shape, args.value, part);
  std::optional<ValueSums<T, A>> sums;
  if constexpr (kValue) {
    sums.emplace(shape, args.grad_value,
                 ValuePart{part.image, part.first_head, part.last_head, 0, shape.channels,
                           !part.pack, part.order});
  }
  const PointTables<A> tables(shape, value.layout.token_step,
                              part.pack ? 1 : part.last_head - part.first_head);
  const auto source = source_of<A>(shape, tables, args.points, &args.grads);
  Points<A> points(tables);
  for_batches(shape, part, *source, tables, points, true, [&](const BatchRow& row) {
    for (auto& dot : points.dot) {
      std::fill_n(&dot[row.start], tables.per_head, A(0));
    }
    CornerGradients<T, A, true, kValue> gradients{
        tables,
        points,
        static_cast<const T*>(args.grad_output) + row.number * shape.channels,
        row.start,
        value.first_head + row.head * value.layout.head_step,
        kValue ? sums->of_head(row.head) : nullptr};
    for_channel_runs<A>(shape.channels, gradients);
  });
  if constexpr (kValue) {
    sums->write();
  }
}

template <typename T, typename A>
void backward_value_part(const BackwardArgs& args, const ValuePart& part) {
  const AttnShape& shape = args.shape;
  const ValueSums<T, A> sums(shape, args.grad_value, part);
  const PointTables<A> tables(shape, sums.layout.token_step, 1);
  const auto source = source_of<A>(shape, tables, args.points, nullptr);
  Points<A> points(tables);
  const Part queries{part.image,     0,    shape.queries, part.first_head,
                     part.last_head, true, part.order};
  for_batches(shape, queries, *source, tables, points, false, [&](const BatchRow& row) {
    const T* grad_output = static_cast<const T*>(args.grad_output) + row.number * shape.channels;
    CornerGradients<T, A, false, true> gradients{
        tables,    points,  grad_output + part.first_channel,
        row.start, nullptr, sums.of_head(row.head)};
    for_channel_runs<A>(sums.channels, gradients);
  });
  sums.write();
}

// Calls run(T(), A()) with the type of the value and the type that it is summed in.
template <typename Run>
void with_value_type(ValueType type, const Run& run) {
  switch (type) {
    case ValueType::kFloat:
      return run(float(), float());
    case ValueType::kDouble:
      return run(double(), double());
    case ValueType::kHalf:
      return run(half_t(), float());
    case ValueType::kBFloat16:
      return run(bfloat16_t(), float());
  }
}

void forward(const ForwardArgs& args, const Part& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    forward_part<decltype(value), decltype(sum)>(args, part);
  });
}

void backward(const BackwardArgs& args, const Part& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    backward_points_part<true, decltype(value), decltype(sum)>(args, part);
  });
}

void backward_points(const BackwardArgs& args, const Part& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    backward_points_part<false, decltype(value), decltype(sum)>(args, part);
  });
}

void backward_value(const BackwardArgs& args, const ValuePart& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    backward_value_part<decltype(value), decltype(sum)>(args, part);
  });
}

const MsDeformAttnKernels kMsDeformAttn = {forward, backward, backward_points, backward_value};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
