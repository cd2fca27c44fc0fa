// Huge pages for large arrays, where the system offers them: kernels that jump about in tens of
// megabytes, or fill them for the first time, otherwise spend much of their time on page faults and
// address translation.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace queryseg {

constexpr size_t kHugePage = size_t{1} << 21;

// Asks for huge pages in that part of an array which consists of whole ones. To be called before
// the array is touched.
inline void prefer_huge_pages(void* start, size_t bytes) {
#if defined(__linux__)
  const uintptr_t first = (reinterpret_cast<uintptr_t>(start) + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + bytes) & ~(kHugePage - 1);
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#else
  static_cast<void>(start);
  static_cast<void>(bytes);
#endif
}

}  // namespace queryseg
