// Large scratch arrays on huge pages where the system offers them: kernels that jump about in tens
// of megabytes otherwise spend much of their time on page faults and address translation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace queryseg {

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    const size_t alignment = bytes < kHugePage ? 64 : kHugePage;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr && rounded > 0) {
      throw std::bad_alloc();
    }
#if defined(__linux__)
    if (alignment == kHugePage) {
      madvise(data_, rounded, MADV_HUGEPAGE);
    }
#endif
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }

 private:
  static constexpr size_t kHugePage = size_t{1} << 21;
  T* data_;
};

}  // namespace queryseg
