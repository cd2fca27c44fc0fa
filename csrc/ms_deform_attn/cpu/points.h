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
//
// A cell that sticks out of the map has one column, or one row, of pixels. Both of its corners
// there are the same pixel then and share its weight, so that the loops over the corners need not
// ask.
template <typename A>
struct Points {
  int count = 0;
  std::vector<A> x, y, attn;       // pixel coordinates and attention weight
  std::vector<A> weight[4];        // bilinear weight times attention weight of each corner
  std::vector<int32_t> left, top;  // first column and row of the cell on the map
  std::vector<int32_t> across;     // -1 where there are two columns, else 0
  std::vector<int32_t> down;       // -1 where there are two rows, else 0
  std::vector<int32_t> on_map;     // 0 where there is no pixel at all
  std::vector<A> dot[4];           // grad_output . value[corner]
  std::vector<A> grad_x, grad_y, grad_attn;

  explicit Points(const PointTables<A>& tables) {
    const size_t count = tables.width.size();
    for (auto* field : {&x, &y, &attn, &grad_x, &grad_y, &grad_attn}) {
      field->resize(count);
    }
    for (int corner = 0; corner < 4; ++corner) {
      weight[corner].resize(count);
      dot[corner].resize(count);
    }
    for (auto* field : {&left, &top, &across, &down, &on_map}) {
      field->resize(count);
    }
  }
};

// The cells of a vector of points.
template <typename A>
struct Cells {
  using V = Vec<A>;
  using Mask = typename V::Mask;

  Mask on_map;
  V left, top;                                    // top left corner
  V fx, fy;                                       // position inside the cell
  Mask has_left, has_right, has_top, has_bottom;  // the columns and rows that lie on the map

  inline Cells(const PointTables<A>& tables, const Points<A>& points, int p) {
    const V width = V::load(&tables.width[p]);
    const V height = V::load(&tables.height[p]);
    const V x = V::load(&points.x[p]);
    const V y = V::load(&points.y[p]);
    const V before_first = V::splat(A(-1));
    // Comparisons with NaN are false: such a point lies off the map.
    on_map = both(both(before_first < x, x < width), both(before_first < y, y < height));
    left = x.keep(on_map).floor();
    top = y.keep(on_map).floor();
    fx = x.keep(on_map) - left;
    fy = y.keep(on_map) - top;
    has_left = before_first < left;
    has_right = left < width + before_first;
    has_top = before_first < top;
    has_bottom = top < height + before_first;
  }
};

// From pixel coordinates to cells and corner weights.
template <typename A>
inline void locate(const PointTables<A>& tables, Points<A>& points) {
  using V = Vec<A>;
  const V one = V::splat(A(1));
  const V half = V::splat(A(0.5));
  const V minus_one = V::splat(A(-1));
  for (int p = 0; p < points.count; p += V::kLanes) {
    const Cells<A> cells(tables, points, p);
    const auto across = both(cells.has_left, cells.has_right);
    const auto down = both(cells.has_top, cells.has_bottom);
    const V attn = V::load(&points.attn[p]);
    const V lower = attn * cells.fy;
    const V upper = attn - lower;
    const V row = half * select(cells.has_top, upper, lower);
    const V upper_row = select(down, upper, row);
    const V lower_row = select(down, lower, row);
    const V column = half * select(cells.has_left, one - cells.fx, cells.fx);
    const V left_column = select(across, one - cells.fx, column);
    const V right_column = select(across, cells.fx, column);
    (upper_row * left_column).store(&points.weight[0][p]);
    (upper_row * right_column).store(&points.weight[1][p]);
    (lower_row * left_column).store(&points.weight[2][p]);
    (lower_row * right_column).store(&points.weight[3][p]);
    cells.left.keep(cells.has_left).store_int(&points.left[p]);
    cells.top.keep(cells.has_top).store_int(&points.top[p]);
    minus_one.keep(across).store_int(&points.across[p]);
    minus_one.keep(down).store_int(&points.down[p]);
    minus_one.keep(cells.on_map).store_int(&points.on_map[p]);
  }
}

// From the four corner products of each point to its gradients by pixel coordinates and weight.
template <typename A>
inline void differentiate(const PointTables<A>& tables, Points<A>& points) {
  using V = Vec<A>;
  for (int p = 0; p < points.count; p += V::kLanes) {
    const Cells<A> cells(tables, points, p);
    const V attn = V::load(&points.attn[p]);
    const V d0 = V::load(&points.dot[0][p]).keep(both(cells.has_top, cells.has_left));
    const V d1 = V::load(&points.dot[1][p]).keep(both(cells.has_top, cells.has_right));
    const V d2 = V::load(&points.dot[2][p]).keep(both(cells.has_bottom, cells.has_left));
    const V d3 = V::load(&points.dot[3][p]).keep(both(cells.has_bottom, cells.has_right));
    const V upper = fma(cells.fx, d1 - d0, d0);
    const V lower = fma(cells.fx, d3 - d2, d2);
    const V across = fma(cells.fy, (d3 - d2) - (d1 - d0), d1 - d0);
    (attn * across).store(&points.grad_x[p]);
    (attn * (lower - upper)).store(&points.grad_y[p]);
    fma(cells.fy, lower - upper, upper).store(&points.grad_attn[p]);
  }
}

// Where the corners of a point lie, in elements from the image's first token. They are numbered row
// by row: 0 and 1 above, 2 and 3 below.
template <typename A>
inline std::array<int64_t, 4> corners_of(const PointTables<A>& tables, const Points<A>& points,
                                         int p) {
  const int64_t upper =
      tables.first[p] + points.top[p] * tables.row_step[p] + points.left[p] * tables.token_step;
  const int64_t lower = upper + (tables.row_step[p] & points.down[p]);
  const int64_t right = tables.token_step & points.across[p];
  return {upper, upper + right, lower, lower + right};
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
