// Building blocks of the CUDA kernels: vector loads, group reductions, atomic additions.
//
// Free of torch and of the CUDA toolkit's own headers beyond what nvcc and NVRTC provide by
// themselves, and valid from CUDA 12 and sm_70 on. Kernels work in groups of lanes: a power of two
// of neighbours within one warp. Every lane of a warp takes part in every shuffle.
#pragma once

#include "common/numeric.h"

namespace queryseg {
namespace device {

using int64 = long long;

constexpr unsigned int kWholeWarp = 0xffffffffu;
constexpr int kThreads = 256;  // per block

// a / b for non-negative numbers: nearly always narrow ones, which divide several times faster.
__device__ __forceinline__ int64 divide(int64 a, int64 b) {
  if (((a | b) >> 32) == 0) {
    return static_cast<unsigned int>(a) / static_cast<unsigned int>(b);
  }
  return a / b;
}

// a * b, rounded before anything is added to it: never a part of a fused multiplication.
__device__ __forceinline__ float product(float a, float b) {
  return __fmul_rn(a, b);
}
__device__ __forceinline__ double product(double a, double b) {
  return __dmul_rn(a, b);
}

template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
  T v[N];
};

// N neighbouring values in one transaction, widened to the compute type.
template <int N, typename T, typename A>
__device__ __forceinline__ void load(const T* from, A (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = to_compute(pack.v[i]);
  }
}

template <int N, typename T, typename A>
__device__ __forceinline__ void store(T* to, const A (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    pack.v[i] = Rounding<T>::to(from[i]);
  }
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// to[i] += values[i], in as few transactions as the architecture allows.
template <int N, typename A>
__device__ __forceinline__ void atomic_add(A* to, const A (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    atomicAdd(to + i, values[i]);
  }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <>
__device__ __forceinline__ void atomic_add<4, float>(float* to, const float (&values)[4]) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(values[0], values[1], values[2], values[3]));
}

template <>
__device__ __forceinline__ void atomic_add<8, float>(float* to, const float (&values)[8]) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(values[0], values[1], values[2], values[3]));
  atomicAdd(reinterpret_cast<float4*>(to + 4),
            make_float4(values[4], values[5], values[6], values[7]));
}
#endif

// The value that lane `lane` of the caller's group of kGroup lanes holds.
template <int kGroup, typename V>
__device__ __forceinline__ V from_lane(V value, int lane) {
  return __shfl_sync(kWholeWarp, value, lane, kGroup);
}

template <int kGroup, typename A>
__device__ __forceinline__ A group_sum(A value) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

template <int kGroup, typename A>
__device__ __forceinline__ A group_max(A value) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) {
    const A other = __shfl_xor_sync(kWholeWarp, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Sums kItems values over the group; lane i gets the sum of item i % kItems. It halves the number
// of items in each step instead of reducing every item over all lanes: kItems - 1 shuffles instead
// of kItems * log2(kItems).
template <int kGroup, int kItems, typename A>
__device__ __forceinline__ A group_sum_items(A (&items)[kItems], int lane) {
#pragma unroll
  for (int half = kItems / 2; half > 0; half /= 2) {
    const bool upper = (lane & half) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const A kept = upper ? items[i + half] : items[i];
      const A sent = upper ? items[i] : items[i + half];
      items[i] = kept + __shfl_xor_sync(kWholeWarp, sent, half);
    }
  }
  A sum = items[0];
#pragma unroll
  for (int distance = kItems; distance < kGroup; distance *= 2) {
    sum += __shfl_xor_sync(kWholeWarp, sum, distance);
  }
  return sum;
}

}  // namespace device
}  // namespace queryseg
