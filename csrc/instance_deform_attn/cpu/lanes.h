// Gathers of channel pairs by pixels in the lanes of a Vec.
#pragma once

#include "common/cpu/vec_math.h"

namespace queryseg {
namespace QUERYSEG_ISA {

template <typename A>
struct Cells;  // Cells<A>(v): v as integers, to gather with

#if QUERYSEG_VEC_BITS == 512

template <>
struct Cells<float> {
  __m512i v;
  explicit QUERYSEG_INLINE Cells(Vec<float> cell) : v(_mm512_cvttps_epi32(cell.v)) {}
  QUERYSEG_INLINE void gather(const float* base, Vec<float>& even, Vec<float>& odd) const {
    const __m512 low = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(v), base, 8));
    const __m512 high =
        _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(v, 1), base, 8));
    const __m512i pick =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even.v = _mm512_permutex2var_ps(low, pick, high);
    odd.v = _mm512_permutex2var_ps(low, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), high);
  }
};

template <>
struct Cells<double> {
  __m256i v;
  explicit QUERYSEG_INLINE Cells(Vec<double> cell)
      : v(_mm256_slli_epi32(_mm512_cvttpd_epi32(cell.v), 1)) {}
  QUERYSEG_INLINE void gather(const double* base, Vec<double>& even, Vec<double>& odd) const {
    even.v = _mm512_i32gather_pd(v, base, 8);
    odd.v = _mm512_i32gather_pd(v, base + 1, 8);
  }
};

#elif QUERYSEG_VEC_BITS == 256

template <>
struct Cells<float> {
  __m256i v;
  explicit QUERYSEG_INLINE Cells(Vec<float> cell) : v(_mm256_cvttps_epi32(cell.v)) {}
  QUERYSEG_INLINE void gather(const float* base, Vec<float>& even, Vec<float>& odd) const {
    const auto* pairs = reinterpret_cast<const double*>(base);
    const __m256 low = _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_castsi256_si128(v), 8));
    const __m256 high =
        _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_extracti128_si256(v, 1), 8));
    const __m256 front = _mm256_permute2f128_ps(low, high, 0x20);
    const __m256 back = _mm256_permute2f128_ps(low, high, 0x31);
    even.v = _mm256_shuffle_ps(front, back, 0x88);
    odd.v = _mm256_shuffle_ps(front, back, 0xdd);
    // front and back hold lanes 0 1 4 5 and 2 3 6 7: their shuffle restores the order.
  }
};

template <>
struct Cells<double> {
  __m128i v;
  explicit QUERYSEG_INLINE Cells(Vec<double> cell)
      : v(_mm_slli_epi32(_mm256_cvttpd_epi32(cell.v), 1)) {}
  QUERYSEG_INLINE void gather(const double* base, Vec<double>& even, Vec<double>& odd) const {
    even.v = _mm256_i32gather_pd(base, v, 8);
    odd.v = _mm256_i32gather_pd(base + 1, v, 8);
  }
};

#else

template <typename A>
struct Cells {
  int32_t v[Vec<A>::kLanes];
  explicit QUERYSEG_INLINE Cells(Vec<A> cell) { cell.store_int(v); }
  QUERYSEG_INLINE void gather(const A* base, Vec<A>& even, Vec<A>& odd) const {
    for (int i = 0; i < Vec<A>::kLanes; ++i) {
      even.v[i] = base[int64_t{2} * v[i]];
      odd.v[i] = base[int64_t{2} * v[i] + 1];
    }
  }
};

#endif

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
