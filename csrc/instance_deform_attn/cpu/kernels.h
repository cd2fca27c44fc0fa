// The interface between the operator and the instruction-set variants of its CPU kernel.
#pragma once

#include "common/cpu/isa.h"
#include "instance_deform_attn/instance_deform_attn.h"

namespace queryseg {

struct InstanceForward {
  InstanceInputs inputs;
  const void* query_maps;  // of all images, see maps.h
  const void* value_maps;
  void* output;  // (N, H, W)
};

struct InstanceBackward {
  InstanceInputs inputs;
  const void* query_maps;
  const void* value_maps;
  const void* grad_output;  // (N, H, W)
  const int64_t* order;     // the instances, image by image
};

// A run of map rows of consecutive instances (in `order`), and what its thread alone adds to. The
// arrays start at the run's first image and first instance.
struct InstanceRun {
  int64_t first_row, last_row;  // position in `order` * H + row
  void* grad_query_maps;
  void* grad_value_slots;
  void* grad_dynamic_weights;
};

// One instruction-set variant of the CPU kernel.
struct InstanceDeformAttnKernels {
  // Rows counted through all instances: n * H + row.
  void (*forward)(const InstanceForward& args, int64_t first_row, int64_t last_row);
  void (*backward)(const InstanceBackward& args, const InstanceRun& run);
};

namespace portable {
extern const InstanceDeformAttnKernels kInstanceDeformAttn;
}
#if QUERYSEG_X86_KERNELS
namespace avx2 {
extern const InstanceDeformAttnKernels kInstanceDeformAttn;
}
namespace avx512 {
extern const InstanceDeformAttnKernels kInstanceDeformAttn;
}
#endif

}  // namespace queryseg
