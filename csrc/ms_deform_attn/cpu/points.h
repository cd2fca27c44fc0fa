// The sampling points of a few queries, from pixel coordinates to cells and corner weights, and
// from the products of the corners to gradients; vectorised over the points.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {

// Points are located in batches of a few hundred: narrow loads that soon follow the wide stores of
// the same data would wait for them (measured: up to twice the time).
constexpr int kBatchPoints = 256;

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

// From the four corner products of each point to its gradients by pixel coordinates and weight.
template <typename A>
inline void differentiate(Points<A>& points) {
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

template <typename A>
inline int64_t cell_offset(const PointTables<A>& tables, const Points<A>& points, int p) {
  return tables.first[p] + points.top[p] * tables.row_step[p] + points.left[p] * tables.token_step;
}

// Corners are numbered row by row: 0 and 1 above, 2 and 3 below.
template <typename A>
inline bool corner_on_map(const PointTables<A>& tables, const Points<A>& points, int p,
                          int corner) {
  const int32_t x = points.left[p] + corner % 2;
  const int32_t y = points.top[p] + corner / 2;
  return x >= 0 && y >= 0 && x < tables.width[p] && y < tables.height[p];
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
