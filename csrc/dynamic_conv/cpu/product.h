// Products of small matrices, computed tile by tile in registers.
//
// A tile of the result stays in registers while k runs over the depth: for each k, every element
// of a column of the left factor meets the vectors of a row of the right one. Neither is packed;
// both lie in the caches.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

// As many accumulators as the registers hold beside one row of the right factor and one broadcast;
// high tiles, so that the right factor is read as seldom as can be (14 rows: four times for 7 x 7).
constexpr int kTileVectors = 2;
constexpr int kTileRows = QUERYSEG_VEC_BITS == 512 ? 14 : 6;

template <typename A>
constexpr int64_t kTileColumns = kTileVectors * Vec<A>::kLanes;

template <typename A>
struct Tile {
  Factor<A> left;
  const A* right;
  int64_t right_step;
  int64_t depth;
  Rows<A> result;
  Ahead ahead;  // memory to fetch meanwhile
};

// visit(0), visit(1), ... with constants, so that arrays which they index can lie in registers.
template <typename Visit, int... kIndices>
QUERYSEG_INLINE void visit_all(std::integer_sequence<int, kIndices...>, const Visit& visit) {
  (visit(std::integral_constant<int, kIndices>()), ...);
}
template <int kCount, typename Visit>
QUERYSEG_INLINE void unrolled(const Visit& visit) {
  visit_all(std::make_integer_sequence<int, kCount>(), visit);
}

template <typename A, int kRows, int kVectors>
void multiply_tile(const Tile<A>& tile) {
  constexpr int kLanes = Vec<A>::kLanes;
  Vec<A> sum[kRows * kVectors];
  unrolled<kRows * kVectors>([&](auto i) { sum[i] = Vec<A>::zero(); });
  const A* left = tile.left.start;
  const A* right = tile.right;
  const char* ahead = tile.ahead.address;
  const int64_t step = tile.left.row_step;
  for (int64_t k = 0; k < tile.depth; ++k) {
    fetch_line(ahead);
    Vec<A> values[kVectors];
    unrolled<kVectors>([&](auto i) { values[i] = Vec<A>::load(right + i * kLanes); });
    unrolled<kRows>([&](auto row) {
      const Vec<A> weight = Vec<A>::splat(left[row * step]);
      unrolled<kVectors>([&](auto i) {
        sum[row * kVectors + i] = fma(weight, values[i], sum[row * kVectors + i]);
      });
    });
    left += tile.left.depth_step;
    right += tile.right_step;
    ahead += tile.ahead.step;
  }
  const Rows<A> result = tile.result;
  unrolled<kRows>([&](auto row) {
    unrolled<kVectors>([&](auto i) { sum[row * kVectors + i].store(result[row] + i * kLanes); });
  });
}

template <typename A, int kRows, int kVectors>
inline void multiply_next_tile(Tile<A>& tile, Prefetch& prefetch) {
  tile.ahead = prefetch.take(tile.depth);
  multiply_tile<A, kRows, kVectors>(tile);
  tile.right += kVectors * Vec<A>::kLanes;
  tile.result.start += kVectors * Vec<A>::kLanes;
}

template <typename A, int kRows>
void multiply_row_of_tiles(Tile<A> tile, int64_t vectors, Prefetch& prefetch) {
  for (; vectors >= kTileVectors; vectors -= kTileVectors) {
    multiply_next_tile<A, kRows, kTileVectors>(tile, prefetch);
  }
  if (vectors > 0) {
    multiply_next_tile<A, kRows, 1>(tile, prefetch);
  }
}

template <typename A>
using RowOfTiles = void (*)(Tile<A> tile, int64_t vectors, Prefetch& prefetch);

template <typename A, int... kLess>
constexpr std::array<RowOfTiles<A>, sizeof...(kLess)> rows_of_tiles(
    std::integer_sequence<int, kLess...>) {
  return {multiply_row_of_tiles<A, kLess + 1>...};
}

// result = left @ right for 1 to kTileRows rows; columns are those of a row of `right`.
template <typename A>
inline void multiply_block(const Factor<A>& left, int64_t rows, const Rows<const A>& right,
                           int64_t depth, const Rows<A>& result, Prefetch& prefetch) {
  static constexpr auto kByRows = rows_of_tiles<A>(std::make_integer_sequence<int, kTileRows>());
  kByRows[static_cast<size_t>(rows - 1)]({left, right.start, right.step, depth, result, {}},
                                         right.step / Vec<A>::kLanes, prefetch);
}

inline int64_t row_blocks(int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}

// How often the tiles of a product load a row of the right factor.
template <typename A>
inline int64_t product_steps(int64_t rows, int64_t depth, int64_t columns) {
  return row_blocks(rows) * depth * ((columns + kTileColumns<A> - 1) / kTileColumns<A>);
}

// The rows of a matrix in blocks of at most kTileRows, as equal as can be: visit(row, count).
template <typename Visit>
inline void for_row_blocks(int64_t rows, const Visit& visit) {
  const int64_t blocks = row_blocks(rows);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = block * rows / blocks;
    visit(row, (block + 1) * rows / blocks - row);
  }
}

// The same for any number of rows.
template <typename A>
void multiply(const Factor<A>& left, int64_t rows, const Rows<const A>& right, int64_t depth,
              const Rows<A>& result, Prefetch& prefetch) {
  for_row_blocks(rows, [&](int64_t row, int64_t count) {
    multiply_block(left.from(row), count, right, depth, result.from(row), prefetch);
  });
}

}  // namespace dynamic_conv_kernel
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
