// Fetches the memory of the next instance while the present one is computed.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

// Where the next line is to be fetched, and how many bytes further in each step.
struct Ahead {
  const char* address;
  int64_t step;
};

// Arrays that are needed soon. Products fetch a few bytes of them for each step of their depth, so
// that the bytes of an instance are in the second-level cache by the time that its turn comes, and
// the memory is asked evenly for them and not faster than it can deliver.
class Prefetch {
 public:
  template <typename T>
  void add(const T* start, int64_t count) {
    const char* bytes = reinterpret_cast<const char*>(start);
    if (count > 0 && added_ < kMost) {
      spans_[added_++] = {bytes, bytes + count * static_cast<int64_t>(sizeof(T))};
    }
  }

  // To be called after all `add`: within so many steps everything is to be fetched.
  void spread(int64_t steps) {
    int64_t bytes = 0;
    for (int i = 0; i < added_; ++i) {
      bytes += spans_[i].end - spans_[i].next;
    }
    step_ = std::min(kLine, (bytes + steps - 1) / steps);
  }

  // Memory to be fetched in the next `count` steps.
  Ahead take(int64_t count) {
    if (current_ == added_) {
      return {reinterpret_cast<const char*>(this), 0};  // something that is in the cache
    }
    Span& span = spans_[current_];
    const Ahead ahead{span.next, step_};
    span.next += count * step_;
    current_ += span.next >= span.end ? 1 : 0;
    return ahead;
  }

 private:
  struct Span {
    const char* next;
    const char* end;
  };
  static constexpr int64_t kLine = 64;
  static constexpr int kMost = 5;
  Span spans_[kMost];
  int64_t step_ = 0;
  int added_ = 0;
  int current_ = 0;
};

QUERYSEG_INLINE void fetch_line(const char* address) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(address, 0, 2);
#else
  static_cast<void>(address);
#endif
}

}  // namespace dynamic_conv_kernel
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
