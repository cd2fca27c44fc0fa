// The interface between the operator and the instruction-set variants of its CPU kernel.
#pragma once

#include "common/cpu/isa.h"
#include "quadtree/quadtree.h"

namespace queryseg {
namespace quadtree {

// One instruction-set variant of the CPU kernel.
struct Kernels {
  // Nodes [first, last).
  void (*forward)(const ForwardArgs& args, int64_t first, int64_t last);
  // All nodes, channels [first, last). Each element of the gradient belongs to one call and is
  // summed in the order of the nodes, so that it does not depend on the number of threads.
  void (*backward)(const BackwardArgs& args, int64_t first, int64_t last);
};

}  // namespace quadtree

namespace portable {
extern const quadtree::Kernels kQuadtree;
}
#if QUERYSEG_X86_KERNELS
namespace avx2 {
extern const quadtree::Kernels kQuadtree;
}
namespace avx512 {
extern const quadtree::Kernels kQuadtree;
}
#endif

}  // namespace queryseg
