// Sums for the cells of the value planes, see maps.h: what a point adds to the four corners of its
// cell lies side by side, so that a lane adds all of it at once.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

constexpr int kSlot = static_cast<int>(MapLayout::kSlot);

// Lanes may share a cell, so they add one after the other.
template <typename A>
inline void add_to_slots_one_by_one(const Vec<A> (&addends)[kSlot], const int32_t* cells, int count,
                                    A* slots) {
  constexpr int kLanes = Vec<A>::kLanes;
  A values[kSlot][kLanes];
  for (int i = 0; i < kSlot; ++i) {
    addends[i].store(values[i]);
  }
  for (int lane = 0; lane < count; ++lane) {
    A* slot = slots + int64_t{kSlot} * cells[lane];
    for (int i = 0; i < kSlot; ++i) {
      slot[i] += values[i][lane];
    }
  }
}

// Adds lane by lane, the first `count` of them: addends[i] to element i of the cell's slot.
template <typename A>
QUERYSEG_INLINE void add_to_slots(const Vec<A> (&addends)[kSlot], const int32_t* cells, int count,
                                  A* slots) {
  add_to_slots_one_by_one(addends, cells, count, slots);
}

#if QUERYSEG_VEC_BITS == 512

QUERYSEG_INLINE void add_slot(__m256 addend, float* slot) {
  _mm256_storeu_ps(slot, _mm256_add_ps(_mm256_loadu_ps(slot), addend));
}

template <>
QUERYSEG_INLINE void add_to_slots(const Vec<float> (&addends)[kSlot], const int32_t* cells,
                                  int count, float* slots) {
  if (count < Vec<float>::kLanes) {
    return add_to_slots_one_by_one(addends, cells, count, slots);
  }
  // quads[half][j]: in quarter q, elements 4 * half to 4 * half + 3 of lane 4 * q + j.
  __m512 quads[2][4];
  for (int half = 0; half < 2; ++half) {
    const Vec<float>* from = addends + 4 * half;
    const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(from[0].v, from[1].v));
    const __m512d high = _mm512_castps_pd(_mm512_unpackhi_ps(from[0].v, from[1].v));
    const __m512d next_low = _mm512_castps_pd(_mm512_unpacklo_ps(from[2].v, from[3].v));
    const __m512d next_high = _mm512_castps_pd(_mm512_unpackhi_ps(from[2].v, from[3].v));
    quads[half][0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low));
    quads[half][1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low));
    quads[half][2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high));
    quads[half][3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high));
  }
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (int j = 0; j < 4; ++j) {
    const __m512d front = _mm512_castps_pd(quads[0][j]), back = _mm512_castps_pd(quads[1][j]);
    const __m512 lower = _mm512_castpd_ps(_mm512_permutex2var_pd(front, first, back));
    const __m512 upper = _mm512_castpd_ps(_mm512_permutex2var_pd(front, second, back));
    add_slot(_mm512_castps512_ps256(lower), slots + int64_t{kSlot} * cells[j]);
    add_slot(_mm512_extractf32x8_ps(lower, 1), slots + int64_t{kSlot} * cells[j + 4]);
    add_slot(_mm512_castps512_ps256(upper), slots + int64_t{kSlot} * cells[j + 8]);
    add_slot(_mm512_extractf32x8_ps(upper, 1), slots + int64_t{kSlot} * cells[j + 12]);
  }
}

#elif QUERYSEG_VEC_BITS == 256

QUERYSEG_INLINE void add_slot(__m256 addend, float* slot) {
  _mm256_storeu_ps(slot, _mm256_add_ps(_mm256_loadu_ps(slot), addend));
}

template <>
QUERYSEG_INLINE void add_to_slots(const Vec<float> (&addends)[kSlot], const int32_t* cells,
                                  int count, float* slots) {
  if (count < Vec<float>::kLanes) {
    return add_to_slots_one_by_one(addends, cells, count, slots);
  }
  // quads[half][j]: in half q, elements 4 * half to 4 * half + 3 of lane 4 * q + j.
  __m256 quads[2][4];
  for (int half = 0; half < 2; ++half) {
    const Vec<float>* from = addends + 4 * half;
    const __m256d low = _mm256_castps_pd(_mm256_unpacklo_ps(from[0].v, from[1].v));
    const __m256d high = _mm256_castps_pd(_mm256_unpackhi_ps(from[0].v, from[1].v));
    const __m256d next_low = _mm256_castps_pd(_mm256_unpacklo_ps(from[2].v, from[3].v));
    const __m256d next_high = _mm256_castps_pd(_mm256_unpackhi_ps(from[2].v, from[3].v));
    quads[half][0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, next_low));
    quads[half][1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, next_low));
    quads[half][2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, next_high));
    quads[half][3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, next_high));
  }
  for (int j = 0; j < 4; ++j) {
    add_slot(_mm256_permute2f128_ps(quads[0][j], quads[1][j], 0x20),
             slots + int64_t{kSlot} * cells[j]);
    add_slot(_mm256_permute2f128_ps(quads[0][j], quads[1][j], 0x31),
             slots + int64_t{kSlot} * cells[j + 4]);
  }
}

#endif

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
