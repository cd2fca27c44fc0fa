// Sampling points given as normalised locations and weights.
#pragma once

#include "ms_deform_attn/cpu/point_source.h"

namespace queryseg {
namespace QUERYSEG_ISA {

template <typename A>
class PlainSource final : public PointSource<A> {
 public:
  PlainSource(const AttnShape& shape, const PointTables<A>& tables, const PlainInputs& inputs,
              const PlainGrads& grads)
      : shape_(shape),
        tables_(tables),
        locations_(static_cast<const A*>(inputs.locations)),
        weights_(static_cast<const A*>(inputs.weights)),
        grad_locations_(static_cast<A*>(grads.locations)),
        grad_weights_(static_cast<A*>(grads.weights)) {}

  void begin(int64_t, const int64_t*, int64_t) override {}

  void read(const QueryHeads& at, int p, Points<A>& points) const override {
    using V = Vec<A>;
    const int64_t first = first_point(at);
    const A* location = locations_ + 2 * first;
    const A* weight = weights_ + first;
    const int count = static_cast<int>(at.heads) * tables_.per_head;
    for (int i = 0; i < count; i += V::kLanes) {
      V x, y;
      load_pairs(location + 2 * i, count - i, x, y);
      fma(x, V::load(&tables_.width[p + i]), V::splat(A(-0.5))).store(&points.x[p + i]);
      fma(y, V::load(&tables_.height[p + i]), V::splat(A(-0.5))).store(&points.y[p + i]);
      load_up_to<A>(weight + i, count - i).store(&points.attn[p + i]);
    }
  }

  void write_grads(const QueryHeads& at, int p, const Points<A>& points) const override {
    using V = Vec<A>;
    const int64_t first = first_point(at);
    A* location = grad_locations_ + 2 * first;
    A* weight = grad_weights_ + first;
    const int count = static_cast<int>(at.heads) * tables_.per_head;
    for (int i = 0; i < count; i += V::kLanes) {
      const V x = V::load(&points.grad_x[p + i]) * V::load(&tables_.width[p + i]);
      const V y = V::load(&points.grad_y[p + i]) * V::load(&tables_.height[p + i]);
      store_pairs_up_to(location + 2 * i, x, y, count - i);
      store_up_to(weight + i, V::load(&points.grad_attn[p + i]), count - i);
    }
  }

 private:
  // Its number within (B, Q, M, L, P).
  int64_t first_point(const QueryHeads& at) const {
    return ((at.image * shape_.queries + at.query) * shape_.heads + at.first_head) *
           tables_.per_head;
  }

  const AttnShape& shape_;
  const PointTables<A>& tables_;
  const A* locations_;
  const A* weights_;
  A* grad_locations_;
  A* grad_weights_;
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
