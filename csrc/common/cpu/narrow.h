// narrow(vector, to): a whole vector, rounded to the nearest and ties to even, as kLanes elements
// of another type.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {

template <typename A>
inline void narrow(Vec<A> v, A* to) {
  v.store(to);
}

#if QUERYSEG_VEC_BITS == 512

inline void narrow(Vec<float> v, half_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void narrow(Vec<float> v, bfloat16_t* to) {
  const __m512i bits = _mm512_castps_si512(v.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i upper =
      _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16),
                            _mm512_cmp_ps_mask(v.v, v.v, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(upper));
}

#elif QUERYSEG_VEC_BITS == 256

inline void narrow(Vec<float> v, half_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void narrow(Vec<float> v, bfloat16_t* to) {
  const __m256i bits = _mm256_castps_si256(v.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i upper =
      _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7fc0),
                         _mm256_castps_si256(_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q)));
  const __m128i packed =
      _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
}

#else

template <typename T, typename A>
inline void narrow(Vec<A> v, T* to) {
  for (int i = 0; i < Vec<A>::kLanes; ++i) {
    to[i] = Rounding<T>::to(v.v[i]);
  }
}

#endif

// The same for an array.
template <typename T, typename A>
inline void narrow_all(const A* from, int64_t count, T* to) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    narrow(Vec<A>::load(from + i), to + i);
  }
  for (; i < count; ++i) {
    to[i] = Rounding<T>::to(from[i]);
  }
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
