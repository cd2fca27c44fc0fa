// The CPU kernel of per-instance deformable attention: neighbouring pixels of a row in the lanes of
// a vector, everything between the map and the logits in registers or the first-level cache.
//
// The backward pass computes the forward pass again for each vector of pixels. Sizes that are
// template parameters are known to the compiler (SOIT's own); 0 stands for any size.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

template <int N>
struct Extent {
  explicit Extent(int64_t) {}
  constexpr operator int() const { return N; }
};

template <>
struct Extent<0> {
  int n;
  explicit Extent(int64_t size) : n(static_cast<int>(size)) {}
  operator int() const { return n; }
};

// Memory for vectors whose number the compiler does not know.
template <typename A>
struct Pool {
  A* next;
  A* take(int count) {
    A* taken = next;
    next += int64_t{count} * Vec<A>::kLanes;
    return taken;
  }
};

// N vectors, or any number of them in memory.
template <typename A, int N>
struct Bank {
  Vec<A> v[N];
  Bank(Pool<A>&, int) {}
  QUERYSEG_INLINE Vec<A>& operator[](int i) { return v[i]; }
};

template <typename A>
struct Bank<A, 0> {
  A* memory;
  Bank(Pool<A>& pool, int count) : memory(pool.take(count)) {}
  QUERYSEG_INLINE Vec<A>& operator[](int i) { return reinterpret_cast<Vec<A>*>(memory)[i]; }
};

// The layers of one instance; pointers to its weights or to sums of their gradients.
template <typename E>
struct Layers {
  E* offset_weight;
  E* offset_bias;
  E* attn_weight;
  E* attn_bias;
  E* out_weight;
  E* out_bias;

  Layers(E* start, const LayerOffsets& at)
      : offset_weight(start),
        offset_bias(start + at.offset_bias),
        attn_weight(start + at.attn_weight),
        attn_bias(start + at.attn_bias),
        out_weight(start + at.out_weight),
        out_bias(start + at.out_bias) {}
};

// The position codes of one row of pixels as lanes: (C, padded width).
template <typename A>
class RowCodes {
 public:
  explicit RowCodes(const InstanceInputs& inputs)
      : inputs_(inputs),
        row_(MapLayout(inputs.shape).query_row),
        columns_(inputs.shape.column_channels() * row_),
        codes_(inputs.shape.channels * row_) {
    std::fill_n(columns_.get(), inputs.shape.column_channels() * row_, A(0));
    std::fill_n(codes_.get(), inputs.shape.channels * row_, A(0));
  }

  void start_instance(int64_t instance) {
    const InstanceShape& shape = inputs_.shape;
    row_codes_ = static_cast<const A*>(inputs_.row_codes) +
                 instance * (shape.height + 1) * shape.row_channels;
    column_codes_ = static_cast<const A*>(inputs_.column_codes) +
                    instance * (shape.width + 1) * shape.column_channels();
    for (int64_t channel = 0; channel < shape.column_channels(); ++channel) {
      for (int64_t column = 0; column < shape.width; ++column) {
        columns_.get()[channel * row_ + column] =
            column_codes_[column * shape.column_channels() + channel];
      }
    }
  }

  const A* of_row(int64_t row, const ValidSize& valid) {
    const InstanceShape& shape = inputs_.shape;
    for (int64_t channel = 0; channel < shape.row_channels; ++channel) {
      A* to = codes_.get() + channel * row_;
      std::fill(to, to + valid.width, row_codes_[row * shape.row_channels + channel]);
      std::fill(to + valid.width, to + shape.width,
                row_codes_[shape.height * shape.row_channels + channel]);
    }
    for (int64_t channel = 0; channel < shape.column_channels(); ++channel) {
      A* to = codes_.get() + (shape.row_channels + channel) * row_;
      if (row < valid.height) {
        std::copy_n(columns_.get() + channel * row_, shape.width, to);
      } else {
        std::fill_n(to, shape.width,
                    column_codes_[shape.width * shape.column_channels() + channel]);
      }
    }
    return codes_.get();
  }

 private:
  const InstanceInputs& inputs_;
  int64_t row_;
  Scratch<A> columns_;
  Scratch<A> codes_;
  const A* row_codes_ = nullptr;
  const A* column_codes_ = nullptr;
};

// A sampling point on a value plane: its cell (top left corner) and where it lies in it.
template <typename A>
struct Placed {
  Vec<A> fx, fy, cell;

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
        memory_((2 * channels_ + 6 * points_ + (4 + 6 * points_) * pairs_) * kLanes) {}

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

  // Adds the gradients of `count` pixels. `sums` holds one vector for each weight of the instance.
  QUERYSEG_INLINE void backward(const Layers<const A>& layer, const A* query, const A* codes,
                                const A* value, A row, A column, Vec<A> grad, int count,
                                const Layers<Vec<A>>& sums, A* grad_query, A* grad_value) const {
    Pool<A> pool{memory_.get()};
    Bank<A, kC> z(pool, channels_), grad_z(pool, channels_);
    Bank<A, kK> x(pool, points_), y(pool, points_), attn(pool, points_);
    Bank<A, kK> fx(pool, points_), fy(pool, points_), cell(pool, points_);
    Bank<A, 2 * kJ> h(pool, 2 * pairs_), grad_h(pool, 2 * pairs_);
    Bank<A, 2 * kJ * kK> sample(pool, 2 * pairs_ * points_);
    Bank<A, 2 * kJ * kK> by_x(pool, 2 * pairs_ * points_), by_y(pool, 2 * pairs_ * points_);
    read_queries(query, codes, z);
    for (int c = 0; c < channels_; ++c) {
      grad_z[c] = Vec<A>::zero();
    }
    *sums.out_bias = *sums.out_bias + grad;
    for (int head = 0; head < heads_; ++head) {
      const Vec<A> normalise =
          Vec<A>::splat(A(1)) / locate(layer, head, row, column, z, x, y, attn);
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
        scatter(fx[k], fy[k], cell[k], attn[k], grad_h, count, grad_value + plane);
      }
    }
    for (int c = 0; c < channels_; ++c) {
      A* to = grad_query + c * layout_.query_plane;
      (Vec<A>::load(to) + grad_z[c]).store(to);
    }
  }

 private:
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

  // Lanes may share corners, so they add one after the other.
  QUERYSEG_INLINE void scatter(Vec<A> fx, Vec<A> fy, Vec<A> cell, Vec<A> attn,
                               Bank<A, 2 * kJ>& grad_h, int count, A* planes) const {
    int32_t cells[kLanes];
    alignas(64) A addends[2 * kLanes];
    cell.store_int(cells);
    Vec<A> weight[4];
    const Vec<A> below = attn * fy;
    const Vec<A> above = attn - below;
    weight[1] = above * fx;
    weight[0] = above - weight[1];
    weight[3] = below * fx;
    weight[2] = below - weight[3];
    for (int pair = 0; pair < pairs_; ++pair) {
      for (int corner = 0; corner < 4; ++corner) {
        store_pairs(addends, weight[corner] * grad_h[2 * pair],
                    weight[corner] * grad_h[2 * pair + 1]);
        A* to = planes + pair * layout_.value_plane + corner_[corner];
        for (int lane = 0; lane < count; ++lane) {
          add_pair(to + int64_t{2} * cells[lane], addends + 2 * lane);
        }
      }
    }
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

inline int64_t image_of(const InstanceInputs& inputs, int64_t instance) {
  return inputs.image_index ? inputs.image_index[instance] : 0;
}

template <typename A, int kC, int kJ, int kK>
void forward_rows(const InstanceForward& args, int64_t first_row, int64_t last_row) {
  constexpr int kLanes = Vec<A>::kLanes;
  const InstanceShape& shape = args.inputs.shape;
  const Attention<A, kC, kJ, kK> attention(args.inputs);
  const MapLayout& layout = attention.layout();
  RowCodes<A> row_codes(args.inputs);
  for (int64_t at = first_row; at < last_row; ++at) {
    const int64_t instance = at / shape.height;
    const int64_t row = at % shape.height;
    const int64_t image = image_of(args.inputs, instance);
    if (at == first_row || row == 0) {
      row_codes.start_instance(instance);
    }
    const Layers<const A> layer(
        static_cast<const A*>(args.inputs.dynamic_weights) + instance * shape.dynamic_weights(),
        attention.layers());
    const A* codes = row_codes.of_row(row, ValidSize(args.inputs, image));
    const A* query =
        static_cast<const A*>(args.query_maps) + image * layout.query_size + row * layout.query_row;
    const A* value = static_cast<const A*>(args.value_maps) + image * layout.value_size;
    A* output = static_cast<A*>(args.output) + at * shape.width;
    for (int64_t column = 0; column < shape.width; column += kLanes) {
      const Vec<A> logit =
          attention.forward(layer, query + column, codes + column, value, A(row), A(column));
      const int64_t count = std::min<int64_t>(kLanes, shape.width - column);
      if (count == kLanes) {
        logit.store(output + column);
      } else {
        logit.store_some(output + column, static_cast<int>(count));
      }
    }
  }
}

template <typename A, int kC, int kJ, int kK>
void backward_rows(const InstanceBackward& args, const InstanceRun& run) {
  constexpr int kLanes = Vec<A>::kLanes;
  const InstanceShape& shape = args.inputs.shape;
  const Attention<A, kC, kJ, kK> attention(args.inputs);
  const MapLayout& layout = attention.layout();
  const int64_t weights = shape.dynamic_weights();
  RowCodes<A> row_codes(args.inputs);
  const Scratch<A> memory(weights * kLanes);
  auto* sum = reinterpret_cast<Vec<A>*>(memory.get());
  const Layers<Vec<A>> sums(sum, attention.layers());
  const int64_t first_instance = run.first_row / shape.height;
  const int64_t first_image = image_of(args.inputs, args.order[first_instance]);
  for (int64_t at = run.first_row; at < run.last_row; ++at) {
    const int64_t instance = args.order[at / shape.height];
    const int64_t row = at % shape.height;
    const int64_t image = image_of(args.inputs, instance);
    if (at == run.first_row || row == 0) {
      row_codes.start_instance(instance);
      std::fill_n(sum, weights, Vec<A>::zero());
    }
    const Layers<const A> layer(
        static_cast<const A*>(args.inputs.dynamic_weights) + instance * weights,
        attention.layers());
    const A* codes = row_codes.of_row(row, ValidSize(args.inputs, image));
    const int64_t query_at = row * layout.query_row;
    const A* query = static_cast<const A*>(args.query_maps) + image * layout.query_size + query_at;
    const A* value = static_cast<const A*>(args.value_maps) + image * layout.value_size;
    A* grad_query =
        static_cast<A*>(run.grad_query_maps) + (image - first_image) * layout.query_size + query_at;
    A* grad_value =
        static_cast<A*>(run.grad_value_maps) + (image - first_image) * layout.value_size;
    const A* grad =
        static_cast<const A*>(args.grad_output) + (instance * shape.height + row) * shape.width;
    for (int64_t column = 0; column < shape.width; column += kLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kLanes, shape.width - column));
      attention.backward(layer, query + column, codes + column, value, A(row), A(column),
                         Vec<A>::load_some(grad + column, count), count, sums, grad_query + column,
                         grad_value);
    }
    if (row + 1 == shape.height || at + 1 == run.last_row) {
      A* grads = static_cast<A*>(run.grad_dynamic_weights) +
                 (at / shape.height - first_instance) * weights;
      for (int64_t i = 0; i < weights; ++i) {
        grads[i] = sum[i].sum();
      }
    }
  }
}

// SOIT: 8 channels, 4 heads of 2, 4 points.
inline bool is_soit(const InstanceShape& shape) {
  return shape.channels == 8 && shape.heads == 4 && shape.points == 4;
}

void forward(const InstanceForward& args, int64_t first_row, int64_t last_row) {
  if (args.inputs.is_double) {
    return forward_rows<double, 0, 0, 0>(args, first_row, last_row);
  }
  if (is_soit(args.inputs.shape)) {
    return forward_rows<float, 8, 1, 4>(args, first_row, last_row);
  }
  return forward_rows<float, 0, 0, 0>(args, first_row, last_row);
}

void backward(const InstanceBackward& args, const InstanceRun& run) {
  if (args.inputs.is_double) {
    return backward_rows<double, 0, 0, 0>(args, run);
  }
  if (is_soit(args.inputs.shape)) {
    return backward_rows<float, 8, 1, 4>(args, run);
  }
  return backward_rows<float, 0, 0, 0>(args, run);
}

}  // namespace

const InstanceDeformAttnKernels kInstanceDeformAttn = {forward, backward};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
