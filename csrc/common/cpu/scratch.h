// Scratch arrays; large ones on huge pages.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/cpu/huge_pages.h"

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
    prefer_huge_pages(data_, rounded);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace queryseg
