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
    const int64_t token_step = tables.token_step;
    Run total;
    for (int i = 0; i < N; ++i) {
      total.v[i] = Vec<A>::zero();
    }
    for (int p = start; p < start + tables.per_head; ++p) {
      if (points.state[p] == A(0)) {
        continue;
      }
      const T* upper = image + channel + cell_offset(tables, points, p);
      const T* lower = upper + tables.row_step[p];
      const T* corners[4] = {upper, upper + token_step, lower, lower + token_step};
      if (points.state[p] == A(2)) {
        Run sum = Run::load_shuffled(corners[0], tail);
        Vec<A> weight = Vec<A>::splat(points.weight[0][p]);
        for (int i = 0; i < N; ++i) {
          sum.v[i] = weight * sum.v[i];
        }
        for (int corner = 1; corner < 4; ++corner) {
          const Run value = Run::load_shuffled(corners[corner], tail);
          weight = Vec<A>::splat(points.weight[corner][p]);
          for (int i = 0; i < N; ++i) {
            sum.v[i] = fma(weight, value.v[i], sum.v[i]);
          }
        }
        // One addition per point: a longer chain through the total would wait for each product.
        for (int i = 0; i < N; ++i) {
          total.v[i] = total.v[i] + sum.v[i];
        }
        continue;
      }
      for (int corner = 0; corner < 4; ++corner) {
        if (corner_on_map(tables, points, p, corner)) {
          const Run value = Run::load_shuffled(corners[corner], tail);
          const Vec<A> weight = Vec<A>::splat(points.weight[corner][p]);
          for (int i = 0; i < N; ++i) {
            total.v[i] = fma(weight, value.v[i], total.v[i]);
          }
        }
      }
    }
    total.template store_shuffled<T>(out + channel, tail);
  }
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
