// Products of small matrices, computed tile by tile in registers.
//
// A tile of the result stays in registers while k runs over the depth: for each k, every element
// of a column of the left factor meets the vectors of a row of the right one. Neither is packed;
// both lie in the caches.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

// As many accumulators as the registers hold beside one row of the right factor and one broadcast.
constexpr int kTileVectors = QUERYSEG_VEC_BITS == 512 ? 4 : 2;
constexpr int kTileRows = 6;

template <typename A>
struct Tile {
  Factor<A> left;
  const A* right;
  int64_t right_step;
  int64_t depth;
  A* result;
  int64_t result_step;
  const char* ahead;  // memory to fetch meanwhile
  int64_t ahead_step;
};

template <typename A, int kRows, int kVectors>
void multiply_tile(const Tile<A>& tile) {
  constexpr int kLanes = Vec<A>::kLanes;
  Vec<A> sum[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kVectors; ++i) {
      sum[row][i] = Vec<A>::zero();
    }
  }
  const A* left = tile.left.start;
  const A* right = tile.right;
  const char* ahead = tile.ahead;
  const int64_t step = tile.left.row_step;
  for (int64_t k = 0; k < tile.depth; ++k) {
    fetch_line(ahead);
    Vec<A> values[kVectors];
    for (int i = 0; i < kVectors; ++i) {
      values[i] = Vec<A>::load(right + i * kLanes);
    }
    for (int row = 0; row < kRows; ++row) {
      const Vec<A> weight = Vec<A>::splat(left[row * step]);
      for (int i = 0; i < kVectors; ++i) {
        sum[row][i] = fma(weight, values[i], sum[row][i]);
      }
    }
    left += tile.left.depth_step;
    right += tile.right_step;
    ahead += tile.ahead_step;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kVectors; ++i) {
      sum[row][i].store(tile.result + row * tile.result_step + i * kLanes);
    }
  }
}

template <typename A, int kRows, int kVectors>
inline void multiply_next_tile(Tile<A>& tile, Prefetch& prefetch) {
  const char* ahead = prefetch.take(tile.depth);
  tile.ahead = ahead == nullptr ? reinterpret_cast<const char*>(tile.right) : ahead;
  tile.ahead_step = ahead == nullptr ? 0 : Prefetch::kLine;
  multiply_tile<A, kRows, kVectors>(tile);
  tile.right += kVectors * Vec<A>::kLanes;
  tile.result += kVectors * Vec<A>::kLanes;
}

template <typename A, int kRows>
void multiply_row_of_tiles(Tile<A> tile, int64_t vectors, Prefetch& prefetch) {
  for (; vectors >= kTileVectors; vectors -= kTileVectors) {
    multiply_next_tile<A, kRows, kTileVectors>(tile, prefetch);
  }
  if (kTileVectors > 2 && vectors >= 2) {
    multiply_next_tile<A, kRows, 2>(tile, prefetch);
    vectors -= 2;
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
  kByRows[static_cast<size_t>(rows - 1)](
      {left, right.start, right.step, depth, result.start, result.step, nullptr, 0},
      right.step / Vec<A>::kLanes, prefetch);
}

// The rows of a matrix in blocks of at most kTileRows, as equal as can be: visit(row, count).
template <typename Visit>
inline void for_row_blocks(int64_t rows, const Visit& visit) {
  const int64_t blocks = (rows + kTileRows - 1) / kTileRows;
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
