// The backward pass of up to kLanes neighbouring pixels of a row.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

template <typename A, int kC, int kJ, int kK>
class AttentionGradients : public Attention<A, kC, kJ, kK> {
  using Base = Attention<A, kC, kJ, kK>;

 public:
  using Base::Base;
  using Base::kLanes;

  // Adds the gradients of `count` pixels. `sums` holds one vector for each weight of the instance,
  // `grad_slots` the slots of all cells of all planes.
  QUERYSEG_INLINE void backward(const Layers<const A>& layer, const A* query, const A* codes,
                                const A* value, A row, A column, Vec<A> grad, int count,
                                const Layers<Vec<A>>& sums, A* grad_query, A* grad_slots) const {
    Pool<A> pool{memory_.get()};
    Bank<A, kC> z(pool, channels_), grad_z(pool, channels_);
    Bank<A, kK> x(pool, points_), y(pool, points_), attn(pool, points_);
    Bank<A, kK> fx(pool, points_), fy(pool, points_), cell(pool, points_);
    Bank<A, 2 * kJ> h(pool, 2 * pairs_), grad_h(pool, 2 * pairs_);
    Bank<A, 2 * kJ * kK> sample(pool, 2 * pairs_ * points_);
    Bank<A, 2 * kJ * kK> by_x(pool, 2 * pairs_ * points_), by_y(pool, 2 * pairs_ * points_);
    this->read_queries(query, codes, z);
    for (int c = 0; c < channels_; ++c) {
      grad_z[c] = Vec<A>::zero();
    }
    *sums.out_bias = *sums.out_bias + grad;
    for (int head = 0; head < heads_; ++head) {
      const Vec<A> normalise =
          Vec<A>::splat(A(1)) / this->locate(layer, head, row, column, z, x, y, attn);
      const int64_t plane = int64_t{head} * pairs_ * layout_.value_plane + layout_.origin;
      for (int i = 0; i < 2 * pairs_; ++i) {
        h[i] = Vec<A>::zero();
      }
      for (int k = 0; k < points_; ++k) {
        attn[k] = attn[k] * normalise;
        const Placed<A> placed(x[k], y[k], A(layout_.value_row));
        fx[k] = placed.fx;
        fy[k] = placed.fy;
        cell[k] = placed.cell;
        const Cells<A> cells(placed.cell);
        for (int pair = 0; pair < pairs_; ++pair) {
          Vec<A> corner[2][4];
          for (int i = 0; i < 4; ++i) {
            cells.gather(value + plane + pair * layout_.value_plane + corner_[i], corner[0][i],
                         corner[1][i]);
          }
          for (int odd = 0; odd < 2; ++odd) {
            const Vec<A>(&v)[4] = corner[odd];
            const int i = 2 * (k * pairs_ + pair) + odd;
            const Vec<A> across = v[1] - v[0];
            const Vec<A> across_below = v[3] - v[2];
            const Vec<A> above = fma(placed.fx, across, v[0]);
            by_y[i] = fma(placed.fx, across_below, v[2]) - above;
            by_x[i] = fma(placed.fy, across_below - across, across);
            sample[i] = fma(placed.fy, by_y[i], above);
            h[2 * pair + odd] = fma(attn[k], sample[i], h[2 * pair + odd]);
          }
        }
      }
      const Vec<A> through = through_output(layer, sums, head, grad, h, grad_h);
      for (int k = 0; k < points_; ++k) {
        Vec<A> grad_x = Vec<A>::zero(), grad_y = Vec<A>::zero(), grad_attn = Vec<A>::zero();
        for (int i = 0; i < 2 * pairs_; ++i) {
          const int at = 2 * k * pairs_ + i;
          grad_x = fma(grad_h[i], by_x[at], grad_x);
          grad_y = fma(grad_h[i], by_y[at], grad_y);
          grad_attn = fma(grad_h[i], sample[at], grad_attn);
        }
        through_projections(layer, sums, head * points_ + k, attn[k] * grad_x, attn[k] * grad_y,
                            attn[k] * (grad_attn - through), z, grad_z);
        scatter(Placed<A>(fx[k], fy[k], cell[k]), attn[k], grad_h, count,
                grad_slots + MapLayout::kSlot / 2 * plane);
      }
    }
    for (int c = 0; c < channels_; ++c) {
      A* to = grad_query + c * layout_.query_plane;
      (Vec<A>::load(to) + grad_z[c]).store(to);
    }
  }

 private:
  using Base::channels_;
  using Base::corner_;
  using Base::head_channels_;
  using Base::heads_;
  using Base::layout_;
  using Base::memory_;
  using Base::pairs_;
  using Base::points_;

  // From the logits' gradient to that of h; returns sum h * grad_h.
  QUERYSEG_INLINE Vec<A> through_output(const Layers<const A>& layer, const Layers<Vec<A>>& sums,
                                        int head, Vec<A> grad, Bank<A, 2 * kJ>& h,
                                        Bank<A, 2 * kJ>& grad_h) const {
    Vec<A> through = Vec<A>::zero();
    for (int i = 0; i < 2 * pairs_; ++i) {
      grad_h[i] = Vec<A>::zero();
      if (i < head_channels_) {
        const int channel = head * head_channels_ + i;
        const Vec<A> active = larger(Vec<A>::zero(), h[i]);
        sums.out_weight[channel] = fma(grad, active, sums.out_weight[channel]);
        const Vec<A> weight = Vec<A>::splat(layer.out_weight[channel]);
        grad_h[i] = (grad * weight).keep(Vec<A>::zero() < h[i]);
        through = fma(grad_h[i], active, through);
      }
    }
    return through;
  }

  QUERYSEG_INLINE void through_projections(const Layers<const A>& layer, const Layers<Vec<A>>& sums,
                                           int point, Vec<A> grad_x, Vec<A> grad_y,
                                           Vec<A> grad_logit, Bank<A, kC>& z,
                                           Bank<A, kC>& grad_z) const {
    const int64_t to_x = int64_t{2} * point * channels_;
    const int64_t to_y = to_x + channels_;
    const int64_t to_attn = int64_t{point} * channels_;
    sums.offset_bias[2 * point] = sums.offset_bias[2 * point] + grad_x;
    sums.offset_bias[2 * point + 1] = sums.offset_bias[2 * point + 1] + grad_y;
    sums.attn_bias[point] = sums.attn_bias[point] + grad_logit;
    for (int c = 0; c < channels_; ++c) {
      sums.offset_weight[to_x + c] = fma(grad_x, z[c], sums.offset_weight[to_x + c]);
      sums.offset_weight[to_y + c] = fma(grad_y, z[c], sums.offset_weight[to_y + c]);
      sums.attn_weight[to_attn + c] = fma(grad_logit, z[c], sums.attn_weight[to_attn + c]);
      grad_z[c] = fma(grad_x, Vec<A>::splat(layer.offset_weight[to_x + c]), grad_z[c]);
      grad_z[c] = fma(grad_y, Vec<A>::splat(layer.offset_weight[to_y + c]), grad_z[c]);
      grad_z[c] = fma(grad_logit, Vec<A>::splat(layer.attn_weight[to_attn + c]), grad_z[c]);
    }
  }

  // Adds to the slots of the cells that one point of every pixel lies in.
  QUERYSEG_INLINE void scatter(const Placed<A>& placed, Vec<A> attn, Bank<A, 2 * kJ>& grad_h,
                               int count, A* slots) const {
    int32_t cells[kLanes];
    placed.cell.store_int(cells);
    Vec<A> weight[4];
    placed.weights(attn, weight);
    for (int pair = 0; pair < pairs_; ++pair) {
      Vec<A> addends[MapLayout::kSlot];
      for (int corner = 0; corner < 4; ++corner) {
        addends[2 * corner] = weight[corner] * grad_h[2 * pair];
        addends[2 * corner + 1] = weight[corner] * grad_h[2 * pair + 1];
      }
      add_to_slots(addends, cells, count, slots + pair * layout_.slot_plane());
    }
  }
};

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
