// The forward pass of up to kLanes neighbouring pixels of a row.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

// A sampling point on a value plane: its cell (top left corner) and where it lies in it.
template <typename A>
struct Placed {
  Vec<A> fx, fy, cell;

  QUERYSEG_INLINE Placed(Vec<A> fx, Vec<A> fy, Vec<A> cell) : fx(fx), fy(fy), cell(cell) {}
  QUERYSEG_INLINE Placed(Vec<A> x, Vec<A> y, A value_row) {
    const Vec<A> left = x.floor();
    const Vec<A> top = y.floor();
    fx = x - left;
    fy = y - top;
    cell = fma(top, Vec<A>::splat(value_row), left);
  }
  // Bilinear weights of the corners, times `factor`.
  QUERYSEG_INLINE void weights(Vec<A> factor, Vec<A> (&corner)[4]) const {
    const Vec<A> below = factor * fy;
    const Vec<A> above = factor - below;
    corner[1] = above * fx;
    corner[0] = above - corner[1];
    corner[3] = below * fx;
    corner[2] = below - corner[3];
  }
};

// kC channels, kJ channel pairs per head, kK points per head.
template <typename A, int kC, int kJ, int kK>
class Attention {
 public:
  static constexpr int kLanes = Vec<A>::kLanes;

  explicit Attention(const InstanceInputs& inputs)
      : inputs_(inputs),
        layout_(inputs.shape),
        at_(inputs.shape),
        channels_(inputs.shape.channels),
        pairs_(layout_.pairs),
        points_(inputs.shape.points),
        heads_(static_cast<int>(inputs.shape.heads)),
        head_channels_(static_cast<int>(inputs.shape.head_channels())),
        corner_{0, 2, 2 * layout_.value_row, 2 * layout_.value_row + 2},
        memory_((2 * channels_ + 6 * points_ + (4 + int64_t{6} * points_) * pairs_) * kLanes) {}

  const LayerOffsets& layers() const { return at_; }
  const MapLayout& layout() const { return layout_; }

  // The logits of up to kLanes pixels.
  QUERYSEG_INLINE Vec<A> forward(const Layers<const A>& layer, const A* query, const A* codes,
                                 const A* value, A row, A column) const {
    Pool<A> pool{memory_.get()};
    Bank<A, kC> z(pool, channels_);
    Bank<A, kK> x(pool, points_), y(pool, points_), attn(pool, points_);
    Bank<A, 2 * kJ> h(pool, 2 * pairs_);
    read_queries(query, codes, z);
    Vec<A> logit = Vec<A>::splat(*layer.out_bias);
    for (int head = 0; head < heads_; ++head) {
      const Vec<A> sum = locate(layer, head, row, column, z, x, y, attn);
      const A* planes = value + int64_t{head} * pairs_ * layout_.value_plane + layout_.origin;
      for (int i = 0; i < 2 * pairs_; ++i) {
        h[i] = Vec<A>::zero();
      }
      for (int k = 0; k < points_; ++k) {
        const Placed<A> placed(x[k], y[k], A(layout_.value_row));
        Vec<A> weight[4];
        placed.weights(attn[k], weight);
        const Cells<A> cells(placed.cell);
        for (int pair = 0; pair < pairs_; ++pair) {
          for (int corner = 0; corner < 4; ++corner) {
            Vec<A> even, odd;
            cells.gather(planes + pair * layout_.value_plane + corner_[corner], even, odd);
            h[2 * pair] = fma(weight[corner], even, h[2 * pair]);
            h[2 * pair + 1] = fma(weight[corner], odd, h[2 * pair + 1]);
          }
        }
      }
      const Vec<A> normalise = Vec<A>::splat(A(1)) / sum;
      for (int i = 0; i < head_channels_; ++i) {
        const Vec<A> active = larger(Vec<A>::zero(), h[i] * normalise);
        logit = fma(Vec<A>::splat(layer.out_weight[head * head_channels_ + i]), active, logit);
      }
    }
    return logit;
  }

 protected:
  QUERYSEG_INLINE void read_queries(const A* query, const A* codes, Bank<A, kC>& z) const {
    for (int c = 0; c < channels_; ++c) {
      z[c] = Vec<A>::load(query + c * layout_.query_plane) +
             Vec<A>::load(codes + c * layout_.query_row);
    }
  }

  // Coordinates of the points of one head and the exponentials of their logits; returns the sum of
  // the latter.
  QUERYSEG_INLINE Vec<A> locate(const Layers<const A>& layer, int head, A row, A column,
                                Bank<A, kC>& z, Bank<A, kK>& x, Bank<A, kK>& y,
                                Bank<A, kK>& attn) const {
    static constexpr A kCount[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Vec<A> columns = Vec<A>::splat(column) + Vec<A>::load(kCount);
    const Vec<A> outside = Vec<A>::splat(A(-MapLayout::kBorder));
    Vec<A> largest = Vec<A>::splat(-std::numeric_limits<A>::infinity());
    for (int k = 0; k < points_; ++k) {
      const int point = head * points_ + k;
      const A* to_x = layer.offset_weight + int64_t{2} * point * channels_;
      const A* to_y = to_x + channels_;
      const A* to_attn = layer.attn_weight + int64_t{point} * channels_;
      Vec<A> dx = Vec<A>::splat(layer.offset_bias[2 * point]);
      Vec<A> dy = Vec<A>::splat(layer.offset_bias[2 * point + 1]);
      Vec<A> logit = Vec<A>::splat(layer.attn_bias[point]);
      for (int c = 0; c < channels_; ++c) {
        dx = fma(Vec<A>::splat(to_x[c]), z[c], dx);
        dy = fma(Vec<A>::splat(to_y[c]), z[c], dy);
        logit = fma(Vec<A>::splat(to_attn[c]), z[c], logit);
      }
      x[k] = smaller(larger(columns + dx, outside), Vec<A>::splat(A(inputs_.shape.width)));
      y[k] =
          smaller(larger(Vec<A>::splat(row) + dy, outside), Vec<A>::splat(A(inputs_.shape.height)));
      attn[k] = logit;
      largest = larger(largest, logit);
    }
    Vec<A> sum = Vec<A>::zero();
    for (int k = 0; k < points_; ++k) {
      attn[k] = exp_negative(attn[k] - largest);
      sum = sum + attn[k];
    }
    return sum;
  }

  const InstanceInputs& inputs_;
  MapLayout layout_;
  LayerOffsets at_;
  Extent<kC> channels_;
  Extent<kJ> pairs_;
  Extent<kK> points_;
  int heads_;
  int head_channels_;
  int64_t corner_[4];  // elements from a cell to its corners
  Scratch<A> memory_;
};

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
