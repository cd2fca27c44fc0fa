// Scratch arrays of kernels; large ones on huge pages.
//
// Each thread keeps its last two arrays of moderate size for the next call: a fresh array of 6 MB
// costs the system more time to clear than a kernel needs to fill it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "common/cpu/huge_pages.h"

namespace queryseg {

struct ScratchBlock {
  void* data = nullptr;
  size_t bytes = 0;
};

class ScratchPool {
 public:
  ScratchPool() = default;
  ScratchPool(const ScratchPool&) = delete;
  ScratchPool& operator=(const ScratchPool&) = delete;
  ~ScratchPool() {
    for (const ScratchBlock& block : kept_) {
      std::free(block.data);
    }
  }

  // At least `bytes`.
  ScratchBlock take(size_t bytes) {
    for (ScratchBlock& block : kept_) {
      if (block.bytes >= bytes && block.bytes <= 2 * bytes) {
        return std::exchange(block, {});
      }
    }
    return allocate(bytes);
  }

  void give(ScratchBlock block) {
    if (block.bytes >= kHugePage && block.bytes <= kMostKept) {
      std::swap(block, kept_[next_]);
      next_ = 1 - next_;
    }
    std::free(block.data);
  }

 private:
  static constexpr size_t kMostKept = 8 * kHugePage;

  static ScratchBlock allocate(size_t bytes) {
    const size_t alignment = bytes < kHugePage ? 64 : kHugePage;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, rounded);
    if (data == nullptr && rounded > 0) {
      throw std::bad_alloc();
    }
    prefer_huge_pages(data, rounded);
    return {data, rounded};
  }

  ScratchBlock kept_[2];
  int next_ = 0;
};

inline ScratchPool& thread_scratch() {
  thread_local ScratchPool pool;
  return pool;
}

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : block_(thread_scratch().take(static_cast<size_t>(count) * sizeof(T))) {}
  ~Scratch() { thread_scratch().give(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return static_cast<T*>(block_.data); }

 private:
  ScratchBlock block_;
};

}  // namespace queryseg
