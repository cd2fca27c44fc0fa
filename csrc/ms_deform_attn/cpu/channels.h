// Vectors of neighbouring channels, for the loops that gather and scatter.
#pragma once

#include "common/cpu/vec_math.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// N registers of channels; with kTail, the last of them holds only `tail` lanes.
template <typename A, int N, bool kTail>
struct Channels {
  Vec<A> v[N];

  template <typename T>
  static inline Channels load(const T* p, int tail) {
    Channels result;
    for (int i = 0; i < N - kTail; ++i) {
      result.v[i] = Vec<A>::load(p + i * Vec<A>::kLanes);
    }
    if (kTail) {
      result.v[N - 1] = Vec<A>::load_some(p + (N - 1) * Vec<A>::kLanes, tail);
    }
    return result;
  }
  // The same channels in an order of their own, the same for all channels of type T: bfloat16 is
  // widened with half as many instructions if pairs need not stay together.
  template <typename T>
  static inline Channels load_shuffled(const T* p, int tail) {
    if constexpr (kShuffles<T>) {
      Channels result;
      for (int i = 0; i < N; i += 2) {
        load_split(p + i * Vec<A>::kLanes, result.v[i], result.v[i + 1]);
      }
      return result;
    } else {
      return load(p, tail);
    }
  }
  template <typename T>
  inline void store_shuffled(A* p, int tail) const {
    if constexpr (kShuffles<T>) {
      for (int i = 0; i < N; i += 2) {
        store_pairs(p + i * Vec<A>::kLanes, v[i], v[i + 1]);
      }
    } else {
      store(p, tail);
    }
  }
  inline void store(A* p, int tail) const {
    for (int i = 0; i < N - kTail; ++i) {
      v[i].store(p + i * Vec<A>::kLanes);
    }
    if (kTail) {
      v[N - 1].store_some(p + (N - 1) * Vec<A>::kLanes, tail);
    }
  }

 private:
  template <typename T>
  static constexpr bool kShuffles = std::is_same_v<T, bfloat16_t> && N % 2 == 0 && !kTail;
};

// Calls visitor.run<N, kTail>(channel, tail) for runs of at most 4 registers that cover `channels`.
template <typename A, typename Visitor>
inline void for_channel_runs(int64_t channels, Visitor& visitor) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  int64_t channel = 0;
  for (; channel + 4 * kLanes <= channels; channel += 4 * kLanes) {
    visitor.template run<4, false>(channel, 0);
  }
  const int whole = static_cast<int>((channels - channel) / kLanes);
  const int tail = static_cast<int>((channels - channel) % kLanes);
  switch (2 * whole + (tail > 0)) {
    case 1:
      return visitor.template run<1, true>(channel, tail);
    case 2:
      return visitor.template run<1, false>(channel, tail);
    case 3:
      return visitor.template run<2, true>(channel, tail);
    case 4:
      return visitor.template run<2, false>(channel, tail);
    case 5:
      return visitor.template run<3, true>(channel, tail);
    case 6:
      return visitor.template run<3, false>(channel, tail);
    case 7:
      return visitor.template run<4, true>(channel, tail);
  }
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
