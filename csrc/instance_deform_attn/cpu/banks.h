// Vectors in registers where their number is known to the compiler, in memory where it is not.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

template <int N>
struct Extent {
  explicit Extent(int64_t) {}
  constexpr operator int() const { return N; }
};

template <>
struct Extent<0> {
  int n;
  explicit Extent(int64_t size) : n(static_cast<int>(size)) {}
  operator int() const { return n; }
};

// Memory for vectors whose number the compiler does not know.
template <typename A>
struct Pool {
  A* next;
  A* take(int count) {
    A* taken = next;
    next += int64_t{count} * Vec<A>::kLanes;
    return taken;
  }
};

// N vectors, or any number of them in memory.
template <typename A, int N>
struct Bank {
  Vec<A> v[N];
  Bank(Pool<A>&, int) {}
  QUERYSEG_INLINE Vec<A>& operator[](int i) { return v[i]; }
};

template <typename A>
struct Bank<A, 0> {
  A* memory;
  Bank(Pool<A>& pool, int count) : memory(pool.take(count)) {}
  QUERYSEG_INLINE Vec<A>& operator[](int i) { return reinterpret_cast<Vec<A>*>(memory)[i]; }
};

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
