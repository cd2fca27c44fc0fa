// Small matrices as the kernel works on them: rows of whole vectors, filled up with zeros.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

template <typename A>
inline int64_t whole_vectors(int64_t count) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  return (count + kLanes - 1) / kLanes * kLanes;
}

// Rows of `step` elements, a multiple of a vector's; E is A or const A.
template <typename E>
struct Rows {
  E* start;
  int64_t step;

  E* operator[](int64_t row) const { return start + row * step; }
  Rows from(int64_t row) const { return {start + row * step, step}; }
};

// The left factor of a product: element (row, k) at start[row * row_step + k * depth_step].
template <typename A>
struct Factor {
  const A* start;
  int64_t row_step;
  int64_t depth_step;

  Factor from(int64_t row) const { return {start + row * row_step, row_step, depth_step}; }
  Factor transposed() const { return {start, depth_step, row_step}; }
};

template <typename A>
inline Factor<A> factor(const Rows<A>& rows) {
  return {rows.start, rows.step, 1};
}

template <typename T, typename A>
inline void widen(const T* from, int64_t count, A* to) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vec<A>::load(from + i).store(to + i);
  }
  for (; i < count; ++i) {
    to[i] = to_compute(from[i]);
  }
}

// The array itself where it has the compute type and whole vectors in every row, else a copy in
// `memory` that has.
template <typename T, typename A>
inline Rows<const A> read_rows(const T* from, int64_t rows, int64_t columns, A* memory) {
  const int64_t step = whole_vectors<A>(columns);
  if constexpr (std::is_same_v<T, A>) {
    if (step == columns) {
      return {from, step};
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    A* to = memory + row * step;
    widen(from + row * columns, columns, to);
    std::fill(to + columns, to + step, A(0));
  }
  return {memory, step};
}

// Where rows are computed that end up in an array of type T: the array itself, or `memory`.
template <typename T, typename A>
inline Rows<A> rows_for(T* array, int64_t columns, A* memory) {
  const int64_t step = whole_vectors<A>(columns);
  if constexpr (std::is_same_v<T, A>) {
    if (step == columns) {
      return {array, step};
    }
  }
  return {memory, step};
}

// Brings rows that `rows_for` placed to the array, if they are not there.
template <typename T, typename A>
inline void write_rows(const Rows<A>& rows, int64_t count, int64_t columns, T* array) {
  if (static_cast<const void*>(rows.start) == array) {
    return;
  }
  for (int64_t row = 0; row < count; ++row) {
    narrow_all(rows[row], columns, array + row * columns);
  }
}

// to[column][row] = from[row][column] for a block of at most kTransposed x kTransposed elements.
constexpr int64_t kTransposed = 8;

template <typename T, typename A>
inline void transpose_block(const T* from, int64_t from_step, int64_t rows, int64_t columns, A* to,
                            int64_t to_step) {
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      to[column * to_step + row] = to_compute(from[row * from_step + column]);
    }
  }
}

#if QUERYSEG_VEC_BITS > 128
inline __m256 load_eight(const float* from) {
  return _mm256_loadu_ps(from);
}
inline __m256 load_eight(const half_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline __m256 load_eight(const bfloat16_t* from) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

template <typename T>
inline void transpose_whole_block(const T* from, int64_t from_step, float* to, int64_t to_step) {
  __m256 pairs[8];
  for (int i = 0; i < 4; ++i) {
    const __m256 upper = load_eight(from + 2 * i * from_step);
    const __m256 lower = load_eight(from + (2 * i + 1) * from_step);
    pairs[2 * i] = _mm256_unpacklo_ps(upper, lower);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(upper, lower);
  }
  // Four rows of the result at a time: columns 0 to 3 in the lower half, 4 to 7 in the upper one.
  __m256 fours[8];
  for (int half = 0; half < 2; ++half) {
    const __m256* pair = pairs + 4 * half;
    fours[4 * half] = _mm256_shuffle_ps(pair[0], pair[2], 0x44);
    fours[4 * half + 1] = _mm256_shuffle_ps(pair[0], pair[2], 0xee);
    fours[4 * half + 2] = _mm256_shuffle_ps(pair[1], pair[3], 0x44);
    fours[4 * half + 3] = _mm256_shuffle_ps(pair[1], pair[3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_step, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_step, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
  }
}
#endif

template <typename T, typename A>
inline void transpose(const T* from, int64_t from_step, int64_t rows, int64_t columns, A* to,
                      int64_t to_step) {
  for (int64_t row = 0; row < rows; row += kTransposed) {
    for (int64_t column = 0; column < columns; column += kTransposed) {
      const T* block = from + row * from_step + column;
      A* target = to + column * to_step + row;
      const int64_t tall = std::min(kTransposed, rows - row);
      const int64_t wide = std::min(kTransposed, columns - column);
#if QUERYSEG_VEC_BITS > 128
      if constexpr (std::is_same_v<A, float>) {
        if (tall == kTransposed && wide == kTransposed) {
          transpose_whole_block(block, from_step, target, to_step);
          continue;
        }
      }
#endif
      transpose_block(block, from_step, tall, wide, target, to_step);
    }
  }
}

}  // namespace dynamic_conv_kernel
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
