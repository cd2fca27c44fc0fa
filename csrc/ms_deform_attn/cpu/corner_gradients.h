// The backward pass at the corners of the points: what they add to the gradient of the value, and
// the products that the gradients of the points are made of.
#pragma once

#include "ms_deform_attn/cpu/channels.h"
#include "ms_deform_attn/cpu/points.h"

namespace queryseg {
namespace QUERYSEG_ISA {

#if QUERYSEG_VEC_BITS == 512
inline __m256 fold(Vec<float> v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v.v), _mm512_extractf32x8_ps(v.v, 1));
}
#elif QUERYSEG_VEC_BITS == 256
inline __m256 fold(Vec<float> v) {
  return v.v;
}
#endif

template <typename A>
inline void sum4(const Vec<A> (&v)[4], A* out) {
  for (int i = 0; i < 4; ++i) {
    out[i] = v[i].sum();
  }
}

#if QUERYSEG_VEC_BITS >= 256
inline void sum4(const Vec<float> (&v)[4], float* out) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(fold(v[0]), fold(v[1])),
                                      _mm256_hadd_ps(fold(v[2]), fold(v[3])));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
#endif

// With kProducts, adds grad_output . value[corner] to the products of every point of a head; with
// kSums, adds weight * grad_output to the gradient of every corner. `tables` know the layout of
// `image`, of `grad_image`, or of both.
template <typename T, typename A, bool kProducts, bool kSums>
struct CornerGradients {
  const PointTables<A>& tables;
  Points<A>& points;
  const T* grad_output;  // of the head
  int start;             // first point of the head
  const T* image;
  A* grad_image;

  template <int N, bool kTail>
  inline void run(int64_t channel, int tail) {
    using Run = Channels<A, N, kTail>;
    const Run grad = Run::load(grad_output + channel, tail);
    const Run shuffled_grad = Run::load_shuffled(grad_output + channel, tail);
    for (int p = start; p < start + tables.per_head; ++p) {
      if (points.on_map[p] == 0) {
        continue;
      }
      const auto corners = corners_of(tables, points, p);
      Vec<A> products[4];
      for (int corner = 0; corner < 4; ++corner) {
        if constexpr (kProducts) {
          const Run value = Run::load_shuffled(image + channel + corners[corner], tail);
          products[corner] = shuffled_grad.v[0] * value.v[0];
          for (int i = 1; i < N; ++i) {
            products[corner] = fma(shuffled_grad.v[i], value.v[i], products[corner]);
          }
        }
        if constexpr (kSums) {
          A* to = grad_image + channel + corners[corner];
          const Vec<A> weight = Vec<A>::splat(points.weight[corner][p]);
          Run sum = Run::load(to, tail);
          for (int i = 0; i < N; ++i) {
            sum.v[i] = fma(weight, grad.v[i], sum.v[i]);
          }
          sum.store(to, tail);
        }
      }
      if constexpr (kProducts) {
        A sums[4];
        sum4(products, sums);
        for (int corner = 0; corner < 4; ++corner) {
          points.dot[corner][p] += sums[corner];
        }
      }
    }
  }
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
