// Where sampling points come from, and where their gradients go.
#pragma once

#include "ms_deform_attn/cpu/points.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Some heads of one query, whose points lie side by side.
struct QueryHeads {
  int64_t image;
  int64_t query;
  int64_t place;  // in the chunk
  int64_t first_head;
  int64_t heads;
};

// Either kind of inputs. Its functions work on many points a call, so that the gathering loops need
// not be compiled for each kind.
template <typename A>
class PointSource {
 public:
  virtual ~PointSource() = default;

  // Comes before any other call for the queries of a chunk, whose numbers these are.
  virtual void begin(int64_t image, const int64_t* queries, int64_t count) = 0;

  // Pixel coordinates and weights of the points, to place `p` of the batch and on. May write up to
  // one vector too much.
  virtual void read(const QueryHeads& at, int p, Points<A>& points) const = 0;

  // From the gradients by pixel coordinates and weights, from place `p` of the batch on.
  virtual void write_grads(const QueryHeads& at, int p, const Points<A>& points) const = 0;
};

// kLanes pairs at most, of `count` at hand.
template <typename A, typename T>
inline void load_pairs(const T* from, int count, Vec<A>& even, Vec<A>& odd) {
  using V = Vec<A>;
  if (count >= V::kLanes) {
    unzip(V::load(from), V::load(from + V::kLanes), even, odd);
    return;
  }
  const int low = std::min<int>(2 * count, V::kLanes);
  unzip(V::load_some(from, low), V::load_some(from + low, 2 * count - low), even, odd);
}

template <typename A, typename T>
inline Vec<A> load_up_to(const T* from, int count) {
  return count >= Vec<A>::kLanes ? Vec<A>::load(from) : Vec<A>::load_some(from, count);
}

// Stores in any number type; `count` lanes, or all of them.
template <typename A>
inline void store_up_to(A* to, Vec<A> v, int count) {
  count >= Vec<A>::kLanes ? v.store(to) : v.store_some(to, count);
}
template <typename T, typename A>
inline void store_up_to(T* to, Vec<A> v, int count) {
  A lanes[Vec<A>::kLanes];
  v.store(lanes);
  for (int i = 0; i < std::min(count, Vec<A>::kLanes); ++i) {
    to[i] = Rounding<T>::to(lanes[i]);
  }
}

template <typename A>
inline void store_pairs_up_to(A* to, Vec<A> even, Vec<A> odd, int count) {
  if (count >= Vec<A>::kLanes) {
    store_pairs(to, even, odd);
    return;
  }
  A lanes[2 * Vec<A>::kLanes];
  store_pairs(lanes, even, odd);
  std::copy_n(lanes, 2 * count, to);
}
template <typename T, typename A>
inline void store_pairs_up_to(T* to, Vec<A> even, Vec<A> odd, int count) {
  A lanes[2 * Vec<A>::kLanes];
  store_pairs(lanes, even, odd);
  for (int i = 0; i < 2 * std::min(count, Vec<A>::kLanes); ++i) {
    to[i] = Rounding<T>::to(lanes[i]);
  }
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
