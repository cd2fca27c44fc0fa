// Arithmetic on Vec beyond vec.h: minimum, maximum, division, exponential, stores of pairs.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define QUERYSEG_INLINE inline __attribute__((always_inline))
#else
#define QUERYSEG_INLINE inline
#endif

namespace queryseg {
namespace QUERYSEG_ISA {

// larger(a, b) and smaller(a, b) are b where a or b is NaN.

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
