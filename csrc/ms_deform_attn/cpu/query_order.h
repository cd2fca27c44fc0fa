// The order in which queries are visited whose points are too few to pack the tokens for.
//
// Such queries read lines from all over the map. From the top of the image to its bottom,
// neighbours share lines and pages (measured: 0.8 of the time).
#pragma once

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "ms_deform_attn/ms_deform_attn.h"

namespace queryseg {

// Normalised height in the image at which a query looks: its first point, or its reference.
template <typename A>
double height_of(const AttnShape& shape, const PointInputs& inputs, int64_t image, int64_t query) {
  if (const auto* plain = std::get_if<PlainInputs>(&inputs)) {
    const int64_t first = (image * shape.queries + query) * shape.heads * shape.points_per_head();
    return static_cast<double>(static_cast<const A*>(plain->locations)[2 * first + 1]);
  }
  const auto& fused = std::get<FusedInputs>(inputs);
  const int64_t* steps = fused.reference_steps;
  return static_cast<double>(
      static_cast<const A*>(fused.reference)[image * steps[0] + query * steps[1] + steps[3]]);
}

// The numbers of the queries of every image, (B, Q), those of equal height in the given order.
inline std::vector<int32_t> order_by_height(const AttnShape& shape, ValueType type,
                                            const PointInputs& inputs) {
  constexpr double kBands = 256;  // also an order for heights that are no numbers
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(shape.batch * shape.queries));
  std::vector<std::pair<int32_t, int32_t>> keys(static_cast<size_t>(shape.queries));
  for (int64_t image = 0; image < shape.batch; ++image) {
    for (int64_t query = 0; query < shape.queries; ++query) {
      const double height = type == ValueType::kDouble
                                ? height_of<double>(shape, inputs, image, query)
                                : height_of<float>(shape, inputs, image, query);
      const double band = height > 0 ? std::min(height * kBands, kBands) : 0;
      keys[static_cast<size_t>(query)] = {static_cast<int32_t>(band), static_cast<int32_t>(query)};
    }
    std::sort(keys.begin(), keys.end());
    for (const auto& key : keys) {
      order.push_back(key.second);
    }
  }
  return order;
}

// Whether points touch each token about once or more. Then packing the tokens pays.
inline bool dense(const AttnShape& shape) {
  return shape.queries * shape.points_per_head() >= shape.tokens;
}

// The order of the queries of every image, or none: packed tokens serve any order alike.
class QueryOrder {
 public:
  QueryOrder(const AttnShape& shape, ValueType type, const PointInputs& points)
      : queries_(shape.queries) {
    if (!dense(shape)) {
      numbers_ = order_by_height(shape, type, points);
    }
  }

  const int32_t* of_image(int64_t image) const {
    return numbers_.empty() ? nullptr : numbers_.data() + image * queries_;
  }

 private:
  int64_t queries_;
  std::vector<int32_t> numbers_;
};

}  // namespace queryseg
