// The interface between the operator and the instruction-set variants of its CPU kernel.
#pragma once

#include "common/cpu/isa.h"
#include "dynamic_conv/dynamic_conv.h"

namespace queryseg {
namespace dynamic_conv {

// One instruction-set variant of the CPU kernel, for instances [first, last) with at least one
// position. An instance belongs to one call, so that no result depends on the number of threads.
struct Kernels {
  void (*forward)(const Forward& call, int64_t first, int64_t last);
  void (*backward)(const Backward& call, int64_t first, int64_t last);
};

}  // namespace dynamic_conv

namespace portable {
extern const dynamic_conv::Kernels kDynamicConv;
}
#if QUERYSEG_X86_KERNELS
namespace avx2 {
extern const dynamic_conv::Kernels kDynamicConv;
}
namespace avx512 {
extern const dynamic_conv::Kernels kDynamicConv;
}
#endif

}  // namespace queryseg
