// The forward pass: what the points of one head read, weighted and summed.
#pragma once

#include "ms_deform_attn/cpu/channels.h"
#include "ms_deform_attn/cpu/points.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Sum over the points of one head of weight * value.
template <typename T, typename A>
struct Gather {
  const PointTables<A>& tables;
  const Points<A>& points;
  const T* image;
  int start;  // first point of the head
  A* out;

  template <int N, bool kTail>
  inline void run(int64_t channel, int tail) {
    using Run = Channels<A, N, kTail>;
    Run total;
    for (int i = 0; i < N; ++i) {
      total.v[i] = Vec<A>::zero();
    }
    for (int p = start; p < start + tables.per_head; ++p) {
      if (points.on_map[p] == 0) {
        continue;
      }
      const auto corners = corners_of(tables, points, p);
      Run sum = Run::load_shuffled(image + channel + corners[0], tail);
      Vec<A> weight = Vec<A>::splat(points.weight[0][p]);
      for (int i = 0; i < N; ++i) {
        sum.v[i] = weight * sum.v[i];
      }
      for (int corner = 1; corner < 4; ++corner) {
        const Run value = Run::load_shuffled(image + channel + corners[corner], tail);
        weight = Vec<A>::splat(points.weight[corner][p]);
        for (int i = 0; i < N; ++i) {
          sum.v[i] = fma(weight, value.v[i], sum.v[i]);
        }
      }
      // One addition per point: a longer chain through the total would wait for each product.
      for (int i = 0; i < N; ++i) {
        total.v[i] = total.v[i] + sum.v[i];
      }
    }
    total.template store_shuffled<T>(out + channel, tail);
  }
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
