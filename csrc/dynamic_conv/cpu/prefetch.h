// Fetches the memory of the next instance while the present one is computed.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

// Arrays that are needed soon. Products fetch one line of them for each step of their depth: the
// bytes of an instance are then in the second-level cache by the time that its turn comes.
class Prefetch {
 public:
  static constexpr int64_t kLine = 64;

  template <typename T>
  void add(const T* start, int64_t count) {
    const char* bytes = reinterpret_cast<const char*>(start);
    if (count > 0 && added_ < kMost) {
      spans_[added_++] = {bytes, bytes + count * static_cast<int64_t>(sizeof(T))};
    }
  }

  // An address from which `steps` lines shall be fetched, or null when there is nothing more.
  const char* take(int64_t steps) {
    if (current_ == added_) {
      return nullptr;
    }
    Span& span = spans_[current_];
    const char* taken = span.next;
    span.next += steps * kLine;
    current_ += span.next >= span.end ? 1 : 0;
    return taken;
  }

 private:
  struct Span {
    const char* next;
    const char* end;
  };
  static constexpr int kMost = 5;
  Span spans_[kMost];
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
