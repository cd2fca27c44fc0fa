// CPU kernel of multi-scale deformable attention, compiled once per instruction set.
//
// For each query, first the cells and corner weights of its points are computed, vectorised over
// the points; then the D channels of every corner are gathered, vectorised over the channels.
//
// In the given layout the tokens of a head lie M * D apart, so that they compete for a few sets of
// the caches and each touches its own page. Where a head's tokens are used often enough, they are
// therefore packed into a scratch buffer first (measured: less than half the time); the gradient of
// the value is always collected in one.
//
// Corners off the map are never read, so that a NaN or an infinity stored at the border cannot leak
// into points that do not touch it.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {

// Offsets in the array that is gathered from: the given value, or the packed tokens of one head.
struct TokenLayout {
  int64_t token_step;
  int64_t head_step;
};

// Points are located in batches of a few hundred: narrow loads that soon follow the wide stores of
// the same data would wait for them (measured: up to twice the time).
constexpr int kBatchPoints = 256;

// Queries of one head that are worked on before the next head of a packed part.
constexpr int64_t kChunkQueries = 64;

// Constants of the level that each point of a batch lies on. A batch holds the points of `heads`
// heads of a few queries.
template <typename A>
struct PointTables {
  int per_head;   // points
  int per_query;  // points
  int queries;    // of a full batch
  int64_t token_step;
  std::vector<A> width, height;
  std::vector<int64_t> first;     // offset of the level's first token
  std::vector<int64_t> row_step;  // offset between the rows of the level

  PointTables(const AttnShape& shape, int64_t token_step, int64_t heads)
      : per_head(static_cast<int>(shape.points_per_head())),
        per_query(static_cast<int>(heads) * per_head),
        queries(std::max(1, kBatchPoints / per_query)),
        token_step(token_step) {
    for (int64_t head = 0; head < queries * heads; ++head) {
      for (const Level& level : shape.levels) {
        for (int64_t p = 0; p < shape.points; ++p) {
          width.push_back(static_cast<A>(level.width));
          height.push_back(static_cast<A>(level.height));
          first.push_back(level.start * token_step);
          row_step.push_back(level.width * token_step);
        }
      }
    }
    width.resize(width.size() + Vec<A>::kLanes, A(1));
    height.resize(height.size() + Vec<A>::kLanes, A(1));
  }
};

// The points of one batch. Arrays are padded, so that whole vectors can be loaded and stored.
template <typename A>
struct Points {
  int count = 0;
  std::vector<A> x, y, attn;       // pixel coordinates and attention weight
  std::vector<A> fx, fy;           // position inside the cell
  std::vector<A> weight[4];        // bilinear weight times attention weight of each corner
  std::vector<int32_t> left, top;  // top left corner of the cell
  std::vector<A> state;            // 0: off the map, 1: some corners on the map, 2: all of them
  std::vector<A> dot[4];           // grad_output . value[corner]
  std::vector<A> grad_x, grad_y, grad_attn;

  explicit Points(const PointTables<A>& tables) {
    const size_t count = tables.width.size();
    for (auto* field : {&x, &y, &attn, &fx, &fy, &state, &grad_x, &grad_y, &grad_attn}) {
      field->resize(count);
    }
    for (int corner = 0; corner < 4; ++corner) {
      weight[corner].resize(count);
      dot[corner].resize(count);
    }
    left.resize(count);
    top.resize(count);
  }
};

// Sampling points given as normalised locations and weights.
template <typename A>
struct PlainSource {
  const A* locations;
  const A* weights;
  A* grad_locations;
  A* grad_weights;

  // Reads points [first, first + count) of the inputs into pixel coordinates and weights from
  // place `p` of the batch on.
  inline void read(int64_t first, int count, int p, const PointTables<A>& tables,
                   Points<A>& points) const {
    using V = Vec<A>;
    const A* location = locations + 2 * first;
    const A* weight = weights + first;
    int i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
      V x, y;
      V::load_pairs(location + 2 * i, x, y);
      fma(x, V::load(&tables.width[p + i]), V::splat(A(-0.5))).store(&points.x[p + i]);
      fma(y, V::load(&tables.height[p + i]), V::splat(A(-0.5))).store(&points.y[p + i]);
      V::load(weight + i).store(&points.attn[p + i]);
    }
    for (; i < count; ++i) {
      points.x[p + i] = location[2 * i] * tables.width[p + i] - A(0.5);
      points.y[p + i] = location[2 * i + 1] * tables.height[p + i] - A(0.5);
      points.attn[p + i] = weight[i];
    }
  }

  // The gradients of the same points, from those by pixel coordinates and weight.
  inline void write_grads(int64_t first, int count, int p, const PointTables<A>& tables,
                          const Points<A>& points) const {
    A* location = grad_locations + 2 * first;
    A* weight = grad_weights + first;
    for (int i = 0; i < count; ++i) {
      location[2 * i] = points.grad_x[p + i] * tables.width[p + i];
      location[2 * i + 1] = points.grad_y[p + i] * tables.height[p + i];
      weight[i] = points.grad_attn[p + i];
    }
  }
};

// From pixel coordinates to cells, positions inside them and corner weights.
template <typename A>
inline void locate(const PointTables<A>& tables, Points<A>& points) {
  using V = Vec<A>;
  const V one = V::splat(A(1));
  const V before_first = V::splat(A(-1));
  for (int p = 0; p < points.count; p += V::kLanes) {
    const V width = V::load(&tables.width[p]);
    const V height = V::load(&tables.height[p]);
    V x = V::load(&points.x[p]);
    V y = V::load(&points.y[p]);
    // Comparisons with NaN are false: such a point lies off the map.
    const auto on_map = both(both(before_first < x, x < width), both(before_first < y, y < height));
    x = x.keep(on_map);
    y = y.keep(on_map);
    const V left = x.floor();
    const V top = y.floor();
    const auto all_corners = both(both(before_first < left, left < width - one),
                                  both(before_first < top, top < height - one));
    const V fx = x - left;
    const V fy = y - top;
    const V lower = V::load(&points.attn[p]) * fy;
    const V upper = V::load(&points.attn[p]) - lower;
    (upper - upper * fx).store(&points.weight[0][p]);
    (upper * fx).store(&points.weight[1][p]);
    (lower - lower * fx).store(&points.weight[2][p]);
    (lower * fx).store(&points.weight[3][p]);
    fx.store(&points.fx[p]);
    fy.store(&points.fy[p]);
    left.store_int(&points.left[p]);
    top.store_int(&points.top[p]);
    (one.keep(on_map) + one.keep(both(on_map, all_corners))).store(&points.state[p]);
  }
}

// From the four corner products of each point to its gradients.
template <typename A>
inline void differentiate(const PointTables<A>& tables, Points<A>& points) {
  using V = Vec<A>;
  for (int p = 0; p < points.count; p += V::kLanes) {
    const V fx = V::load(&points.fx[p]);
    const V fy = V::load(&points.fy[p]);
    const V attn = V::load(&points.attn[p]);
    const V d0 = V::load(&points.dot[0][p]);
    const V d1 = V::load(&points.dot[1][p]);
    const V d2 = V::load(&points.dot[2][p]);
    const V d3 = V::load(&points.dot[3][p]);
    const V upper = fma(fx, d1 - d0, d0);
    const V lower = fma(fx, d3 - d2, d2);
    const V across = fma(fy, (d3 - d2) - (d1 - d0), d1 - d0);
    (attn * across).store(&points.grad_x[p]);
    (attn * (lower - upper)).store(&points.grad_y[p]);
    fma(fy, lower - upper, upper).store(&points.grad_attn[p]);
  }
}

// N registers of channels; with kTail, the last of them holds only `tail` lanes.
template <typename A, int N, bool kTail>
struct Channels {
  Vec<A> v[N];

  template <typename T>
  static inline Channels load(const T* p, int tail) {
    Channels result;
    for (int i = 0; i < N - kTail; ++i) {
      result.v[i] = Vec<A>::load(p + i * Vec<A>::kLanes);
    }
    if (kTail) {
      result.v[N - 1] = Vec<A>::load_some(p + (N - 1) * Vec<A>::kLanes, tail);
    }
    return result;
  }
  inline void store(A* p, int tail) const {
    for (int i = 0; i < N - kTail; ++i) {
      v[i].store(p + i * Vec<A>::kLanes);
    }
    if (kTail) {
      v[N - 1].store_some(p + (N - 1) * Vec<A>::kLanes, tail);
    }
  }
};

// Calls visitor.run<N, kTail>(channel, tail) for runs of at most 4 registers that cover `channels`.
template <typename A, typename Visitor>
inline void for_channel_runs(int64_t channels, Visitor& visitor) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  int64_t channel = 0;
  for (; channel + 4 * kLanes <= channels; channel += 4 * kLanes) {
    visitor.template run<4, false>(channel, 0);
  }
  const int whole = static_cast<int>((channels - channel) / kLanes);
  const int tail = static_cast<int>((channels - channel) % kLanes);
  switch (2 * whole + (tail > 0)) {
    case 1:
      return visitor.template run<1, true>(channel, tail);
    case 2:
      return visitor.template run<1, false>(channel, tail);
    case 3:
      return visitor.template run<2, true>(channel, tail);
    case 4:
      return visitor.template run<2, false>(channel, tail);
    case 5:
      return visitor.template run<3, true>(channel, tail);
    case 6:
      return visitor.template run<3, false>(channel, tail);
    case 7:
      return visitor.template run<4, true>(channel, tail);
  }
}

template <typename A>
inline int64_t cell_offset(const PointTables<A>& tables, const Points<A>& points, int p) {
  return tables.first[p] + points.top[p] * tables.row_step[p] + points.left[p] * tables.token_step;
}

template <typename A>
inline bool corner_on_map(const PointTables<A>& tables, const Points<A>& points, int p,
                          int corner) {
  const int32_t x = points.left[p] + corner % 2;
  const int32_t y = points.top[p] + corner / 2;
  return x >= 0 && y >= 0 && x < tables.width[p] && y < tables.height[p];
}

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
        Run sum = Run::load(corners[0], tail);
        Vec<A> weight = Vec<A>::splat(points.weight[0][p]);
        for (int i = 0; i < N; ++i) {
          sum.v[i] = weight * sum.v[i];
        }
        for (int corner = 1; corner < 4; ++corner) {
          const Run value = Run::load(corners[corner], tail);
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
          const Run value = Run::load(corners[corner], tail);
          const Vec<A> weight = Vec<A>::splat(points.weight[corner][p]);
          for (int i = 0; i < N; ++i) {
            total.v[i] = fma(weight, value.v[i], total.v[i]);
          }
        }
      }
    }
    total.store(out + channel, tail);
  }
};

#if QUERYSEG_VEC_BITS == 512
inline __m256 fold(Vec<float> v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v.v), _mm512_extractf32x8_ps(v.v, 1));
}
#elif QUERYSEG_VEC_BITS == 256
inline __m256 fold(Vec<float> v) {
  return v.v;
}
#endif

template <typename A>
inline void sum4(const Vec<A> (&v)[4], A* out) {
  for (int i = 0; i < 4; ++i) {
    out[i] = v[i].sum();
  }
}

#if QUERYSEG_VEC_BITS >= 256
inline void sum4(const Vec<float> (&v)[4], float* out) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(fold(v[0]), fold(v[1])),
                                      _mm256_hadd_ps(fold(v[2]), fold(v[3])));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
#endif

// Products of the corners with grad_output, which the point gradients are made of.
template <typename T, typename A>
struct Dots {
  const PointTables<A>& tables;
  Points<A>& points;
  const T* image;
  const T* grad_output;  // of the head
  int start;

  template <int N, bool kTail>
  inline void run(int64_t channel, int tail) {
    using Run = Channels<A, N, kTail>;
    const Run grad = Run::load(grad_output + channel, tail);
    for (int p = start; p < start + tables.per_head; ++p) {
      if (points.state[p] == A(0)) {
        continue;
      }
      const T* upper = image + channel + cell_offset(tables, points, p);
      const T* lower = upper + tables.row_step[p];
      const T* corners[4] = {upper, upper + tables.token_step, lower, lower + tables.token_step};
      Vec<A> products[4];
      for (int corner = 0; corner < 4; ++corner) {
        products[corner] = Vec<A>::zero();
        if (points.state[p] == A(2) || corner_on_map(tables, points, p, corner)) {
          const Run value = Run::load(corners[corner], tail);
          for (int i = 0; i < N; ++i) {
            products[corner] = fma(grad.v[i], value.v[i], products[corner]);
          }
        }
      }
      A sums[4];
      sum4(products, sums);
      for (int corner = 0; corner < 4; ++corner) {
        points.dot[corner][p] += sums[corner];
      }
    }
  }
};

// Adds weight * grad_output to the gradient of every corner.
template <typename T, typename A>
struct Scatter {
  const PointTables<A>& tables;
  const Points<A>& points;
  const T* grad_output;
  A* grad_image;
  int start;

  template <int N, bool kTail>
  inline void run(int64_t channel, int tail) {
    using Run = Channels<A, N, kTail>;
    const Run grad = Run::load(grad_output + channel, tail);
    for (int p = start; p < start + tables.per_head; ++p) {
      if (points.state[p] == A(0)) {
        continue;
      }
      A* upper = grad_image + channel + cell_offset(tables, points, p);
      A* lower = upper + tables.row_step[p];
      A* corners[4] = {upper, upper + tables.token_step, lower, lower + tables.token_step};
      for (int corner = 0; corner < 4; ++corner) {
        if (points.state[p] == A(2) || corner_on_map(tables, points, p, corner)) {
          const Vec<A> weight = Vec<A>::splat(points.weight[corner][p]);
          Run sum = Run::load(corners[corner], tail);
          for (int i = 0; i < N; ++i) {
            sum.v[i] = fma(weight, grad.v[i], sum.v[i]);
          }
          sum.store(corners[corner], tail);
        }
      }
    }
  }
};

// The tokens that a part of the work gathers from: as given, or the part's heads packed.
template <typename T>
struct ValueView {
  TokenLayout layout;
  const T* first_head;
  Scratch<T> packed;

  ValueView(const AttnShape& shape, const void* value, const Part& part)
      : layout{shape.heads * shape.channels, shape.channels},
        first_head(static_cast<const T*>(value) + part.image * shape.tokens * layout.token_step +
                   part.first_head * shape.channels),
        packed(part.pack ? (part.last_head - part.first_head) * shape.tokens * shape.channels : 0) {
    if (part.pack) {
      const int64_t heads = part.last_head - part.first_head;
      const TokenLayout to{shape.channels, shape.tokens * shape.channels};
      for (int64_t token = 0; token < shape.tokens; ++token) {
        for (int64_t head = 0; head < heads; ++head) {
          std::copy_n(first_head + token * layout.token_step + head * layout.head_step,
                      shape.channels, packed.get() + token * to.token_step + head * to.head_step);
        }
      }
      first_head = packed.get();
      layout = to;
    }
  }
};

// Walks a part batch by batch: reads and locates the points, calls visit(row_head, head, start) for
// each of its (query, head), where `row_head` numbers it within (B, Q, M), `head` counts from the
// part's first and its points start at `start`, then finish(first_point, count, start) for each run
// of points that is contiguous in the inputs. Packed heads are walked one after the other within a
// chunk of queries, so that the inputs are read while their pages are at hand.
template <typename A, typename Source, typename Visit, typename Finish>
inline void for_batches(const AttnShape& shape, const Part& part, const Source& source,
                        const PointTables<A>& tables, Points<A>& points, const Visit& visit,
                        const Finish& finish) {
  const int64_t part_heads = part.last_head - part.first_head;
  const int64_t heads = tables.per_query / tables.per_head;
  const int64_t chunk = part.pack ? kChunkQueries : part.last_query - part.first_query;
  for (int64_t chunk_query = part.first_query; chunk_query < part.last_query;
       chunk_query += chunk) {
    const int64_t chunk_end = std::min(chunk_query + chunk, part.last_query);
    for (int64_t first_head = 0; first_head < part_heads; first_head += heads) {
      for (int64_t query = chunk_query; query < chunk_end; query += tables.queries) {
        const int64_t queries = std::min<int64_t>(tables.queries, chunk_end - query);
        const int64_t row_head =
            (part.image * shape.queries + query) * shape.heads + part.first_head + first_head;
        points.count = static_cast<int>(queries) * tables.per_query;
        const int run = heads == shape.heads ? points.count : tables.per_query;
        const int64_t first_point = row_head * tables.per_head;
        const int64_t run_step = shape.heads * tables.per_head;
        for (int p = 0; p < points.count; p += run) {
          source.read(first_point + p / run * run_step, run, p, tables, points);
        }
        locate(tables, points);
        for (int64_t i = 0; i < queries; ++i) {
          for (int64_t head = 0; head < heads; ++head) {
            visit(row_head + i * shape.heads + head, first_head + head,
                  static_cast<int>(i * heads + head) * tables.per_head);
          }
        }
        for (int p = 0; p < points.count; p += run) {
          finish(first_point + p / run * run_step, run, p);
        }
      }
    }
  }
}

template <typename T, typename A>
void forward_part(const ForwardArgs& args, const Part& part) {
  const AttnShape& shape = args.shape;
  const ValueView<T> value(shape, args.value, part);
  const PointTables<A> tables(shape, value.layout.token_step,
                              part.pack ? 1 : part.last_head - part.first_head);
  const PlainSource<A> source{static_cast<const A*>(args.points.locations),
                              static_cast<const A*>(args.points.weights), nullptr, nullptr};
  Points<A> points(tables);
  std::vector<A> row(shape.channels);
  const auto visit = [&](int64_t row_head, int64_t head, int start) {
    const T* tokens = value.first_head + head * value.layout.head_step;
    T* result = static_cast<T*>(args.output) + row_head * shape.channels;
    if constexpr (std::is_same_v<T, A>) {
      Gather<T, A> gather{tables, points, tokens, start, result};
      for_channel_runs<A>(shape.channels, gather);
    } else {
      Gather<T, A> gather{tables, points, tokens, start, row.data()};
      for_channel_runs<A>(shape.channels, gather);
      for (int64_t channel = 0; channel < shape.channels; ++channel) {
        result[channel] = Rounding<T>::to(row[channel]);
      }
    }
  };
  for_batches(shape, part, source, tables, points, visit, [](int64_t, int, int) {});
}

template <typename T, typename A>
void backward_points_part(const BackwardArgs& args, const Part& part) {
  const AttnShape& shape = args.shape;
  const ValueView<T> value(shape, args.value, part);
  const PointTables<A> tables(shape, value.layout.token_step,
                              part.pack ? 1 : part.last_head - part.first_head);
  const PlainSource<A> source{
      static_cast<const A*>(args.points.locations), static_cast<const A*>(args.points.weights),
      static_cast<A*>(args.grads.locations), static_cast<A*>(args.grads.weights)};
  Points<A> points(tables);
  const auto visit = [&](int64_t row_head, int64_t head, int start) {
    for (auto& dot : points.dot) {
      std::fill_n(&dot[start], tables.per_head, A(0));
    }
    const T* tokens = value.first_head + head * value.layout.head_step;
    const T* grad_output = static_cast<const T*>(args.grad_output) + row_head * shape.channels;
    Dots<T, A> dots{tables, points, tokens, grad_output, start};
    for_channel_runs<A>(shape.channels, dots);
  };
  const auto finish = [&](int64_t first, int count, int p) {
    if (p == 0) {
      differentiate(tables, points);
    }
    source.write_grads(first, count, p, tables, points);
  };
  for_batches(shape, part, source, tables, points, visit, finish);
}

// Where the sums of a part of the value's gradient grow: in the result itself, if it has the type
// of the sums and the points are too few to pay for another pass over the tokens, else packed head
// by head and written at the end.
template <typename T, typename A>
struct GradValueSums {
  const int64_t heads, tokens, channels;
  const TokenLayout result_layout;
  T* const result;
  const bool in_place;
  const TokenLayout layout;
  const Scratch<A> packed;

  GradValueSums(const AttnShape& shape, void* grad_value, const ValuePart& part)
      : heads(part.last_head - part.first_head),
        tokens(shape.tokens),
        channels(part.last_channel - part.first_channel),
        result_layout{shape.heads * shape.channels, shape.channels},
        result(static_cast<T*>(grad_value) + part.image * shape.tokens * result_layout.token_step +
               part.first_head * result_layout.head_step + part.first_channel),
        in_place(std::is_same_v<T, A> && shape.queries * shape.points_per_head() < shape.tokens),
        layout(in_place ? result_layout : TokenLayout{channels, shape.tokens * channels}),
        packed(in_place ? 0 : heads * shape.tokens * channels) {
    if (in_place) {
      for_rows([&](T* row, int64_t, int64_t) { std::fill_n(row, channels, T(0)); });
    } else {
      std::fill_n(packed.get(), heads * tokens * channels, A(0));
    }
  }

  A* of_head(int64_t head) const {
    if constexpr (std::is_same_v<T, A>) {
      if (in_place) {
        return result + head * layout.head_step;
      }
    }
    return packed.get() + head * layout.head_step;
  }

  void write() const {
    if (in_place) {
      return;
    }
    for_rows([&](T* row, int64_t token, int64_t head) {
      const A* sums = packed.get() + head * layout.head_step + token * layout.token_step;
      for (int64_t channel = 0; channel < channels; ++channel) {
        row[channel] = Rounding<T>::to(sums[channel]);
      }
    });
  }

 private:
  template <typename Visit>
  void for_rows(const Visit& visit) const {
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t head = 0; head < heads; ++head) {
        visit(result + token * result_layout.token_step + head * result_layout.head_step, token,
              head);
      }
    }
  }
};

template <typename T, typename A>
void backward_value_part(const BackwardArgs& args, const ValuePart& part) {
  const AttnShape& shape = args.shape;
  const GradValueSums<T, A> sums(shape, args.grad_value, part);
  const PointTables<A> tables(shape, sums.layout.token_step, 1);
  const PlainSource<A> source{static_cast<const A*>(args.points.locations),
                              static_cast<const A*>(args.points.weights), nullptr, nullptr};
  Points<A> points(tables);
  const auto visit = [&](int64_t row_head, int64_t head, int start) {
    const T* grad_output =
        static_cast<const T*>(args.grad_output) + row_head * shape.channels + part.first_channel;
    Scatter<T, A> scatter{tables, points, grad_output, sums.of_head(head), start};
    for_channel_runs<A>(sums.channels, scatter);
  };
  const Part queries{part.image, 0, shape.queries, part.first_head, part.last_head, true};
  for_batches(shape, queries, source, tables, points, visit, [](int64_t, int, int) {});
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

void backward_points(const BackwardArgs& args, const Part& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    backward_points_part<decltype(value), decltype(sum)>(args, part);
  });
}

void backward_value(const BackwardArgs& args, const ValuePart& part) {
  with_value_type(args.type, [&](auto value, auto sum) {
    backward_value_part<decltype(value), decltype(sum)>(args, part);
  });
}

const MsDeformAttnKernels kMsDeformAttn = {forward, backward_points, backward_value};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
