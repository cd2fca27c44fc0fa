// Arithmetic on Vec beyond vec.h: minimum, maximum, division, exponential, pairs.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define QUERYSEG_INLINE inline __attribute__((always_inline))
#else
#define QUERYSEG_INLINE inline
#endif

namespace queryseg {
namespace QUERYSEG_ISA {

// larger(a, b) and smaller(a, b) are b where a or b is NaN. with_rest(v, n, rest) is v in the first
// n lanes. unzip parts the pairs that lie in two vectors, store_pairs joins them again.

#if QUERYSEG_VEC_BITS == 512

inline Vec<float> larger(Vec<float> a, Vec<float> b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline Vec<double> larger(Vec<double> a, Vec<double> b) {
  return {_mm512_max_pd(a.v, b.v)};
}
inline Vec<float> smaller(Vec<float> a, Vec<float> b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline Vec<double> smaller(Vec<double> a, Vec<double> b) {
  return {_mm512_min_pd(a.v, b.v)};
}
inline Vec<float> operator/(Vec<float> a, Vec<float> b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline Vec<double> operator/(Vec<double> a, Vec<double> b) {
  return {_mm512_div_pd(a.v, b.v)};
}
// a * 2^n for integral n.
inline Vec<float> scale_by_power(Vec<float> a, Vec<float> n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}
inline Vec<double> scale_by_power(Vec<double> a, Vec<double> n) {
  return {_mm512_scalef_pd(a.v, n.v)};
}

inline void load_split(const bfloat16_t* p, Vec<float>& even, Vec<float>& odd) {
  const __m512i pairs = _mm512_loadu_si512(p);
  even.v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  odd.v = _mm512_castsi512_ps(
      _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
inline Vec<float> with_rest(Vec<float> v, int n, float rest) {
  return {_mm512_mask_mov_ps(_mm512_set1_ps(rest), Vec<float>::first(n), v.v)};
}
inline Vec<double> with_rest(Vec<double> v, int n, double rest) {
  return {_mm512_mask_mov_pd(_mm512_set1_pd(rest), Vec<double>::first(n), v.v)};
}
inline float largest_lane(Vec<float> v) {
  return _mm512_reduce_max_ps(v.v);
}
inline double largest_lane(Vec<double> v) {
  return _mm512_reduce_max_pd(v.v);
}
inline void unzip(Vec<float> low, Vec<float> high, Vec<float>& even, Vec<float>& odd) {
  const __m512i pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even.v = _mm512_permutex2var_ps(low.v, pick, high.v);
  odd.v = _mm512_permutex2var_ps(low.v, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), high.v);
}
inline void unzip(Vec<double> low, Vec<double> high, Vec<double>& even, Vec<double>& odd) {
  const __m512i pick = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  even.v = _mm512_permutex2var_pd(low.v, pick, high.v);
  odd.v = _mm512_permutex2var_pd(low.v, _mm512_add_epi64(pick, _mm512_set1_epi64(1)), high.v);
}
inline void store_pairs(float* p, Vec<float> even, Vec<float> odd) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  _mm512_storeu_ps(p, _mm512_permutex2var_ps(even.v, first, odd.v));
  _mm512_storeu_ps(p + 16, _mm512_permutex2var_ps(even.v, second, odd.v));
}
inline void store_pairs(double* p, Vec<double> even, Vec<double> odd) {
  const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i second = _mm512_add_epi64(first, _mm512_set1_epi64(4));
  _mm512_storeu_pd(p, _mm512_permutex2var_pd(even.v, first, odd.v));
  _mm512_storeu_pd(p + 8, _mm512_permutex2var_pd(even.v, second, odd.v));
}

#elif QUERYSEG_VEC_BITS == 256

inline Vec<float> larger(Vec<float> a, Vec<float> b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline Vec<double> larger(Vec<double> a, Vec<double> b) {
  return {_mm256_max_pd(a.v, b.v)};
}
inline Vec<float> smaller(Vec<float> a, Vec<float> b) {
  return {_mm256_min_ps(a.v, b.v)};
}
inline Vec<double> smaller(Vec<double> a, Vec<double> b) {
  return {_mm256_min_pd(a.v, b.v)};
}
inline Vec<float> operator/(Vec<float> a, Vec<float> b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline Vec<double> operator/(Vec<double> a, Vec<double> b) {
  return {_mm256_div_pd(a.v, b.v)};
}
// a * 2^n for integral n within the exponents of normal numbers.
inline Vec<float> scale_by_power(Vec<float> a, Vec<float> n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)))};
}
inline Vec<double> scale_by_power(Vec<double> a, Vec<double> n) {
  const __m256i biased =
      _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n.v)), _mm256_set1_epi64x(1023));
  return {_mm256_mul_pd(a.v, _mm256_castsi256_pd(_mm256_slli_epi64(biased, 52)))};
}

inline void load_split(const bfloat16_t* p, Vec<float>& even, Vec<float>& odd) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  even.v = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  odd.v = _mm256_castsi256_ps(
      _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
inline Vec<float> with_rest(Vec<float> v, int n, float rest) {
  const __m256 kept = _mm256_castsi256_ps(Vec<float>::first(n));
  return {_mm256_blendv_ps(_mm256_set1_ps(rest), v.v, kept)};
}
inline Vec<double> with_rest(Vec<double> v, int n, double rest) {
  const __m256d kept = _mm256_castsi256_pd(Vec<double>::first(n));
  return {_mm256_blendv_pd(_mm256_set1_pd(rest), v.v, kept)};
}
inline float largest_lane(Vec<float> v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline double largest_lane(Vec<double> v) {
  const __m128d half = _mm_max_pd(_mm256_castpd256_pd128(v.v), _mm256_extractf128_pd(v.v, 1));
  return _mm_cvtsd_f64(_mm_max_sd(half, _mm_unpackhi_pd(half, half)));
}
inline void unzip(Vec<float> low, Vec<float> high, Vec<float>& even, Vec<float>& odd) {
  const __m256 front = _mm256_permute2f128_ps(low.v, high.v, 0x20);
  const __m256 back = _mm256_permute2f128_ps(low.v, high.v, 0x31);
  even.v = _mm256_shuffle_ps(front, back, 0x88);
  odd.v = _mm256_shuffle_ps(front, back, 0xdd);
}
inline void unzip(Vec<double> low, Vec<double> high, Vec<double>& even, Vec<double>& odd) {
  const __m256d front = _mm256_permute2f128_pd(low.v, high.v, 0x20);
  const __m256d back = _mm256_permute2f128_pd(low.v, high.v, 0x31);
  even.v = _mm256_unpacklo_pd(front, back);
  odd.v = _mm256_unpackhi_pd(front, back);
}
inline void store_pairs(float* p, Vec<float> even, Vec<float> odd) {
  const __m256 low = _mm256_unpacklo_ps(even.v, odd.v);
  const __m256 high = _mm256_unpackhi_ps(even.v, odd.v);
  _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
}
inline void store_pairs(double* p, Vec<double> even, Vec<double> odd) {
  const __m256d low = _mm256_unpacklo_pd(even.v, odd.v);
  const __m256d high = _mm256_unpackhi_pd(even.v, odd.v);
  _mm256_storeu_pd(p, _mm256_permute2f128_pd(low, high, 0x20));
  _mm256_storeu_pd(p + 4, _mm256_permute2f128_pd(low, high, 0x31));
}

#else

template <typename A>
inline Vec<A> larger(Vec<A> a, Vec<A> b) {
  for (int i = 0; i < Vec<A>::kLanes; ++i) {
    a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  }
  return a;
}
template <typename A>
inline Vec<A> smaller(Vec<A> a, Vec<A> b) {
  for (int i = 0; i < Vec<A>::kLanes; ++i) {
    a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  }
  return a;
}
template <typename A>
inline Vec<A> operator/(Vec<A> a, Vec<A> b) {
  return {{a.v[0] / b.v[0], a.v[1] / b.v[1], a.v[2] / b.v[2], a.v[3] / b.v[3]}};
}

inline void load_split(const bfloat16_t* p, Vec<float>& even, Vec<float>& odd) {
  even = {{to_compute(p[0]), to_compute(p[2]), to_compute(p[4]), to_compute(p[6])}};
  odd = {{to_compute(p[1]), to_compute(p[3]), to_compute(p[5]), to_compute(p[7])}};
}
template <typename A>
inline Vec<A> with_rest(Vec<A> v, int n, A rest) {
  for (int i = n; i < Vec<A>::kLanes; ++i) {
    v.v[i] = rest;
  }
  return v;
}
template <typename A>
inline A largest_lane(Vec<A> v) {
  const A low = v.v[0] > v.v[1] ? v.v[0] : v.v[1];
  const A high = v.v[2] > v.v[3] ? v.v[2] : v.v[3];
  return low > high ? low : high;
}
template <typename A>
inline void unzip(Vec<A> low, Vec<A> high, Vec<A>& even, Vec<A>& odd) {
  even = {{low.v[0], low.v[2], high.v[0], high.v[2]}};
  odd = {{low.v[1], low.v[3], high.v[1], high.v[3]}};
}
template <typename A>
inline void store_pairs(A* p, Vec<A> even, Vec<A> odd) {
  for (int i = 0; i < Vec<A>::kLanes; ++i) {
    p[2 * i] = even.v[i];
    p[2 * i + 1] = odd.v[i];
  }
}

#endif

// exp(x) for x <= 0; NaN for NaN. What would be smaller than the smallest normal number is about
// that number.
#if QUERYSEG_VEC_BITS > 128
template <typename A>
QUERYSEG_INLINE Vec<A> exp_negative(Vec<A> x) {
  constexpr bool kDouble = sizeof(A) == 8;
  // The Taylor series of exp on [-ln(2) / 2, ln(2) / 2], to the precision of A.
  constexpr int kTerms = kDouble ? 14 : 8;
  constexpr A kInverseFactorial[14] = {A(1.0),
                                       A(1.0),
                                       A(1.0 / 2),
                                       A(1.0 / 6),
                                       A(1.0 / 24),
                                       A(1.0 / 120),
                                       A(1.0 / 720),
                                       A(1.0 / 5040),
                                       A(1.0 / 40320),
                                       A(1.0 / 362880),
                                       A(1.0 / 3628800),
                                       A(1.0 / 39916800),
                                       A(1.0 / 479001600),
                                       A(1.0 / 6227020800)};
  const Vec<A> bounded = larger(Vec<A>::splat(kDouble ? A(-708) : A(-87)), x);
  const Vec<A> n =
      fma(bounded, Vec<A>::splat(A(1.4426950408889634)), Vec<A>::splat(A(0.5))).floor();
  // n * ln(2) is taken off in two parts; the product with the first is exact.
  const A first = kDouble ? A(0.693147180369123816490) : A(0.693359375);
  const A second = kDouble ? A(1.90821492927058770002e-10) : A(-2.12194440e-4);
  Vec<A> rest = fma(n, Vec<A>::splat(-first), bounded);
  rest = fma(n, Vec<A>::splat(-second), rest);
  Vec<A> sum = Vec<A>::splat(kInverseFactorial[kTerms - 1]);
  for (int i = kTerms - 2; i >= 0; --i) {
    sum = fma(sum, rest, Vec<A>::splat(kInverseFactorial[i]));
  }
  return scale_by_power(sum, n);
}
#else
template <typename A>
inline Vec<A> exp_negative(Vec<A> x) {
  return {{std::exp(x.v[0]), std::exp(x.v[1]), std::exp(x.v[2]), std::exp(x.v[3])}};
}
#endif

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
