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
#if QUERYSEG_VEC_BITS == 512
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
constexpr int kTileRows = 6;

template <typename A>
struct Tile {
  Factor<A> left;
  const A* right;
  int64_t right_step;
  int64_t depth;
  A* result;
  int64_t result_step;
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
  const int64_t step = tile.left.row_step;
  for (int64_t k = 0; k < tile.depth; ++k) {
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
  }
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kVectors; ++i) {
      sum[row][i].store(tile.result + row * tile.result_step + i * kLanes);
    }
  }
}

template <typename A, int kRows>
inline void multiply_row_of_tiles(Tile<A> tile, int64_t vectors) {
  constexpr int kLanes = Vec<A>::kLanes;
  for (; vectors >= kTileVectors; vectors -= kTileVectors) {
    multiply_tile<A, kRows, kTileVectors>(tile);
    tile.right += kTileVectors * kLanes;
    tile.result += kTileVectors * kLanes;
  }
  if (kTileVectors > 2 && vectors >= 2) {
    multiply_tile<A, kRows, 2>(tile);
    tile.right += 2 * kLanes;
    tile.result += 2 * kLanes;
    vectors -= 2;
  }
  if (vectors > 0) {
    multiply_tile<A, kRows, 1>(tile);
  }
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

// Up to kTileRows rows of left @ right.
template <typename A>
void multiply_block(const Factor<A>& left, int64_t rows, const Rows<const A>& right, int64_t depth,
                    const Rows<A>& result) {
  const Tile<A> tile{left, right.start, right.step, depth, result.start, result.step};
  const int64_t vectors = right.step / Vec<A>::kLanes;
  switch (rows) {
    case 1:
      return multiply_row_of_tiles<A, 1>(tile, vectors);
    case 2:
      return multiply_row_of_tiles<A, 2>(tile, vectors);
    case 3:
      return multiply_row_of_tiles<A, 3>(tile, vectors);
    case 4:
      return multiply_row_of_tiles<A, 4>(tile, vectors);
    case 5:
      return multiply_row_of_tiles<A, 5>(tile, vectors);
    default:
      return multiply_row_of_tiles<A, 6>(tile, vectors);
  }
}

// result = left @ right, of `rows` rows; columns are those of a row of `right`.
template <typename A>
void multiply(const Factor<A>& left, int64_t rows, const Rows<const A>& right, int64_t depth,
              const Rows<A>& result) {
  for_row_blocks(rows, [&](int64_t row, int64_t count) {
    multiply_block(left.from(row), count, right, depth, result.from(row));
  });
}

}  // namespace dynamic_conv_kernel
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
