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

// N neighbouring values as one transaction brings them; value(i) widens one.
template <typename T, int N, bool kInPairs = sizeof(T) == 2 && N % 2 == 0>
struct alignas(N * sizeof(T)) Loaded {
  T values[N];

  __device__ __forceinline__ auto value(int i) const { return to_compute(values[i]); }
};

// Two 16-bit values share a register: taken apart only where they are widened, each costs one
// instruction instead of three.
template <typename T, int N>
struct alignas(N * sizeof(T)) Loaded<T, N, true> {
  unsigned int pairs[N / 2];

  __device__ __forceinline__ float value(int i) const {
    return to_compute(T{static_cast<unsigned short>(i % 2 ? pairs[i / 2] >> 16 : pairs[i / 2])});
  }
};

template <int N, typename T, typename A>
__device__ __forceinline__ void load(const T* from, A (&to)[N]) {
  const auto loaded = *reinterpret_cast<const Loaded<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = loaded.value(i);
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

// Neighbouring floats that one atomic addition takes.
#ifndef QUERYSEG_ATOMIC_FLOATS
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define QUERYSEG_ATOMIC_FLOATS 4
#else
#define QUERYSEG_ATOMIC_FLOATS 1
#endif
#endif

// to[i] += values[i], in as few transactions as the architecture allows. `to` is aligned to N
// values, or to 4 if those are fewer.
template <int N>
__device__ __forceinline__ void atomic_add(float* to, const float (&values)[N]) {
  constexpr int kWidth = N % QUERYSEG_ATOMIC_FLOATS == 0 ? QUERYSEG_ATOMIC_FLOATS
                         : N % 2 == 0                    ? QUERYSEG_ATOMIC_FLOATS / 2
                                                         : 1;
#pragma unroll
  for (int i = 0; i < N; i += kWidth) {
    if constexpr (kWidth == 4) {
      atomicAdd(reinterpret_cast<float4*>(to + i),
                make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]));
    } else if constexpr (kWidth == 2) {
      atomicAdd(reinterpret_cast<float2*>(to + i), make_float2(values[i], values[i + 1]));
    } else {
      atomicAdd(to + i, values[i]);
    }
  }
}

template <int N>
__device__ __forceinline__ void atomic_add(double* to, const double (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    atomicAdd(to + i, values[i]);
  }
}

// What a lane adds when its group adds to kGroup * N neighbouring channels: not N neighbours, as it
// would load them, but pieces beside those of the other lanes. An addition of all lanes then goes
// to whole sectors of the cache, which takes as long for a sector as for one of its values. kWhole
// says that there are always so many channels, so that no piece needs a question.
template <typename A, int N, int kGroup, bool kWhole>
struct AtomicShare {
  static constexpr int kFloats = N < QUERYSEG_ATOMIC_FLOATS ? N : QUERYSEG_ATOMIC_FLOATS;
  static constexpr int kPiece = sizeof(A) == sizeof(float) ? kFloats : 1;
  static constexpr int kPieces = N / kPiece;
  int lane;
  int channels;  // that there are, a multiple of N

  __device__ __forceinline__ int channel(int piece) const {
    return (piece * kGroup + lane) * kPiece;
  }
  __device__ __forceinline__ bool has(int piece) const {
    return kWhole || channel(piece) < channels;
  }
  // Its values of an array, zeros beyond the end.
  template <typename T>
  __device__ __forceinline__ void load(const T* from, A (&values)[kPieces][kPiece]) const {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        values[piece][i] = A(0);
      }
      if (has(piece)) {
        device::load<kPiece>(from + channel(piece), values[piece]);
      }
    }
  }
  // to[channel] += weight * value
  __device__ __forceinline__ void add(A* to, A weight, const A (&values)[kPieces][kPiece]) const {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      A addend[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        addend[i] = weight * values[piece][i];
      }
      if (has(piece)) {
        atomic_add(to + channel(piece), addend);
      }
    }
  }
};

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
