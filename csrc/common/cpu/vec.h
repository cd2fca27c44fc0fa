// Vec<float> and Vec<double>: one register of the variant being compiled (see isa.h).
//
// load() reads any value type and widens it; the *_some forms touch only the first n lanes, and
// the other lanes read as zero. select(mask, a, b) is a where the mask is on, else b.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {

template <typename A>
struct Vec;

#if QUERYSEG_VEC_BITS == 512

template <>
struct Vec<float> {
  static constexpr int kLanes = 16;
  __m512 v;

  static inline __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static inline Vec zero() { return {_mm512_setzero_ps()}; }
  static inline Vec splat(float a) { return {_mm512_set1_ps(a)}; }
  static inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static inline Vec load_some(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first(n), p)};
  }
  static inline Vec widen(__m256i bits, const half_t*) { return {_mm512_cvtph_ps(bits)}; }
  static inline Vec widen(__m256i bits, const bfloat16_t*) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  template <typename T>
  static inline Vec load(const T* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), p);
  }
  template <typename T>
  static inline Vec load_some(const T* p, int n) {
    return widen(_mm256_maskz_loadu_epi16(first(n), p), p);
  }
  using Mask = __mmask16;
  inline Vec keep(Mask mask) const { return {_mm512_maskz_mov_ps(mask, v)}; }
  inline Vec floor() const { return {_mm512_roundscale_ps(v, _MM_FROUND_TO_NEG_INF | 8)}; }
  inline void store_int(int32_t* p) const { _mm512_storeu_si512(p, _mm512_cvttps_epi32(v)); }
  inline void store(float* p) const { _mm512_storeu_ps(p, v); }
  inline void store_some(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }
  inline float sum() const { return _mm512_reduce_add_ps(v); }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 8;
  __m512d v;

  static inline __mmask8 first(int n) { return static_cast<__mmask8>((1u << n) - 1u); }
  static inline Vec zero() { return {_mm512_setzero_pd()}; }
  static inline Vec splat(double a) { return {_mm512_set1_pd(a)}; }
  static inline Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static inline Vec load_some(const double* p, int n) {
    return {_mm512_maskz_loadu_pd(first(n), p)};
  }
  using Mask = __mmask8;
  inline Vec keep(Mask mask) const { return {_mm512_maskz_mov_pd(mask, v)}; }
  inline Vec floor() const { return {_mm512_roundscale_pd(v, _MM_FROUND_TO_NEG_INF | 8)}; }
  inline void store_int(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvttpd_epi32(v));
  }
  inline void store(double* p) const { _mm512_storeu_pd(p, v); }
  inline void store_some(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), v); }
  inline double sum() const { return _mm512_reduce_add_pd(v); }
};

inline Vec<float> operator+(Vec<float> a, Vec<float> b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Vec<double> operator+(Vec<double> a, Vec<double> b) {
  return {_mm512_add_pd(a.v, b.v)};
}
inline Vec<float> operator-(Vec<float> a, Vec<float> b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Vec<double> operator-(Vec<double> a, Vec<double> b) {
  return {_mm512_sub_pd(a.v, b.v)};
}
inline __mmask16 operator<(Vec<float> a, Vec<float> b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
}
inline __mmask8 operator<(Vec<double> a, Vec<double> b) {
  return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ);
}
inline __mmask16 both(__mmask16 a, __mmask16 b) {
  return a & b;
}
inline __mmask8 both(__mmask8 a, __mmask8 b) {
  return a & b;
}
inline Vec<float> operator*(Vec<float> a, Vec<float> b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Vec<double> operator*(Vec<double> a, Vec<double> b) {
  return {_mm512_mul_pd(a.v, b.v)};
}
inline Vec<float> select(__mmask16 mask, Vec<float> a, Vec<float> b) {
  return {_mm512_mask_blend_ps(mask, b.v, a.v)};
}
inline Vec<double> select(__mmask8 mask, Vec<double> a, Vec<double> b) {
  return {_mm512_mask_blend_pd(mask, b.v, a.v)};
}
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm512_fmadd_pd(a.v, b.v, c.v)};
}

#elif QUERYSEG_VEC_BITS == 256

template <>
struct Vec<float> {
  static constexpr int kLanes = 8;
  __m256 v;

  static inline __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static inline Vec zero() { return {_mm256_setzero_ps()}; }
  static inline Vec splat(float a) { return {_mm256_set1_ps(a)}; }
  static inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static inline Vec load_some(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
  static inline Vec widen(__m128i bits, const half_t*) { return {_mm256_cvtph_ps(bits)}; }
  static inline Vec widen(__m128i bits, const bfloat16_t*) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  template <typename T>
  static inline Vec load(const T* p) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), p);
  }
  template <typename T>
  static inline Vec load_some(const T* p, int n) {
    T lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) {
      lanes[i] = p[i];
    }
    return load(lanes);
  }
  using Mask = __m256;
  inline Vec keep(Mask mask) const { return {_mm256_and_ps(v, mask)}; }
  inline Vec floor() const { return {_mm256_floor_ps(v)}; }
  inline void store_int(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(v));
  }
  inline void store(float* p) const { _mm256_storeu_ps(p, v); }
  inline void store_some(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }
  inline float sum() const {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 4;
  __m256d v;

  static inline __m256i first(int n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static inline Vec zero() { return {_mm256_setzero_pd()}; }
  static inline Vec splat(double a) { return {_mm256_set1_pd(a)}; }
  static inline Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static inline Vec load_some(const double* p, int n) { return {_mm256_maskload_pd(p, first(n))}; }
  using Mask = __m256d;
  inline Vec keep(Mask mask) const { return {_mm256_and_pd(v, mask)}; }
  inline Vec floor() const { return {_mm256_floor_pd(v)}; }
  inline void store_int(int32_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvttpd_epi32(v));
  }
  inline void store(double* p) const { _mm256_storeu_pd(p, v); }
  inline void store_some(double* p, int n) const { _mm256_maskstore_pd(p, first(n), v); }
  inline double sum() const {
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }
};

inline Vec<float> operator+(Vec<float> a, Vec<float> b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Vec<double> operator+(Vec<double> a, Vec<double> b) {
  return {_mm256_add_pd(a.v, b.v)};
}
inline Vec<float> operator-(Vec<float> a, Vec<float> b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline Vec<double> operator-(Vec<double> a, Vec<double> b) {
  return {_mm256_sub_pd(a.v, b.v)};
}
inline __m256 operator<(Vec<float> a, Vec<float> b) {
  return _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ);
}
inline __m256d operator<(Vec<double> a, Vec<double> b) {
  return _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ);
}
inline __m256 both(__m256 a, __m256 b) {
  return _mm256_and_ps(a, b);
}
inline __m256d both(__m256d a, __m256d b) {
  return _mm256_and_pd(a, b);
}
inline Vec<float> operator*(Vec<float> a, Vec<float> b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Vec<double> operator*(Vec<double> a, Vec<double> b) {
  return {_mm256_mul_pd(a.v, b.v)};
}
inline Vec<float> select(__m256 mask, Vec<float> a, Vec<float> b) {
  return {_mm256_blendv_ps(b.v, a.v, mask)};
}
inline Vec<double> select(__m256d mask, Vec<double> a, Vec<double> b) {
  return {_mm256_blendv_pd(b.v, a.v, mask)};
}
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm256_fmadd_pd(a.v, b.v, c.v)};
}

#else

// Four lanes of plain C++: compilers turn the loops into SSE2, NEON or whatever the target has.
template <typename A>
struct Vec {
  static constexpr int kLanes = 4;
  A v[kLanes];

  static inline Vec zero() { return splat(A(0)); }
  static inline Vec splat(A a) { return {{a, a, a, a}}; }
  template <typename T>
  static inline Vec load(const T* p) {
    return {{to_compute(p[0]), to_compute(p[1]), to_compute(p[2]), to_compute(p[3])}};
  }
  template <typename T>
  static inline Vec load_some(const T* p, int n) {
    Vec result = zero();
    for (int i = 0; i < n; ++i) {
      result.v[i] = to_compute(p[i]);
    }
    return result;
  }
  struct Mask {
    bool on[kLanes];
  };
  inline Vec keep(Mask mask) const {
    Vec result;
    for (int i = 0; i < kLanes; ++i) {
      result.v[i] = mask.on[i] ? v[i] : A(0);
    }
    return result;
  }
  inline Vec floor() const {
    return {{std::floor(v[0]), std::floor(v[1]), std::floor(v[2]), std::floor(v[3])}};
  }
  inline void store_int(int32_t* p) const {
    for (int i = 0; i < kLanes; ++i) {
      p[i] = static_cast<int32_t>(v[i]);
    }
  }
  inline void store(A* p) const {
    for (int i = 0; i < kLanes; ++i) {
      p[i] = v[i];
    }
  }
  inline void store_some(A* p, int n) const {
    for (int i = 0; i < n; ++i) {
      p[i] = v[i];
    }
  }
  inline A sum() const { return (v[0] + v[1]) + (v[2] + v[3]); }
};

template <typename A>
inline Vec<A> operator+(Vec<A> a, Vec<A> b) {
  return {{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
}
template <typename A>
inline Vec<A> operator-(Vec<A> a, Vec<A> b) {
  return {{a.v[0] - b.v[0], a.v[1] - b.v[1], a.v[2] - b.v[2], a.v[3] - b.v[3]}};
}
template <typename A>
inline typename Vec<A>::Mask operator<(Vec<A> a, Vec<A> b) {
  return {{a.v[0] < b.v[0], a.v[1] < b.v[1], a.v[2] < b.v[2], a.v[3] < b.v[3]}};
}
template <typename M>
inline M both(M a, M b) {
  for (bool& on : a.on) {
    on = on && b.on[&on - a.on];
  }
  return a;
}
template <typename A>
inline Vec<A> operator*(Vec<A> a, Vec<A> b) {
  return {{a.v[0] * b.v[0], a.v[1] * b.v[1], a.v[2] * b.v[2], a.v[3] * b.v[3]}};
}
template <typename A>
inline Vec<A> select(typename Vec<A>::Mask mask, Vec<A> a, Vec<A> b) {
  for (int i = 0; i < Vec<A>::kLanes; ++i) {
    b.v[i] = mask.on[i] ? a.v[i] : b.v[i];
  }
  return b;
}
template <typename A>
inline Vec<A> fma(Vec<A> a, Vec<A> b, Vec<A> c) {
  return a * b + c;
}

#endif

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
