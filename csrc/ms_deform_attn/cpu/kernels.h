// The interface between the operator and the instruction-set variants of its CPU kernel.
#pragma once

#include "common/cpu/isa.h"
#include "ms_deform_attn/ms_deform_attn.h"

namespace queryseg {

// One piece of the work on one image: some queries and some heads. Queries are counted as `order`
// lists them, or as given where it is null.
struct Part {
  int64_t image;
  int64_t first_query, last_query;
  int64_t first_head, last_head;
  bool pack;  // gather from a copy of the tokens that is packed head by head
  const int32_t* order;

  int64_t query(int64_t place) const { return order == nullptr ? place : order[place]; }
};

// One piece of the gradient of the value: some heads, some channels of each. Each element belongs
// to one part and is summed in one order of the queries, so that the result does not depend on the
// number of threads.
struct ValuePart {
  int64_t image;
  int64_t first_head, last_head;
  int64_t first_channel, last_channel;
  bool in_place;         // sum in the result, which is zero-filled and of the type of the sums
  const int32_t* order;  // as in Part
};

// One instruction-set variant of the CPU kernel.
struct MsDeformAttnKernels {
  void (*forward)(const ForwardArgs& args, const Part& part);
  // The gradients of points and value in one walk. The part has all queries and, where it packs, a
  // type of sums that the value need not have.
  void (*backward)(const BackwardArgs& args, const Part& part);
  // The same in two walks, where threads cannot share the heads evenly.
  void (*backward_points)(const BackwardArgs& args, const Part& part);
  void (*backward_value)(const BackwardArgs& args, const ValuePart& part);
};

namespace portable {
extern const MsDeformAttnKernels kMsDeformAttn;
}
#if QUERYSEG_X86_KERNELS
namespace avx2 {
extern const MsDeformAttnKernels kMsDeformAttn;
}
namespace avx512 {
extern const MsDeformAttnKernels kMsDeformAttn;
}
#endif

}  // namespace queryseg
