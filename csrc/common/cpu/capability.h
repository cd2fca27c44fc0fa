// Which vector instructions the CPU kernels use on this machine.
#pragma once

#include "common/cpu/isa.h"

namespace queryseg {

enum class CpuCapability { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

// The best variant that this machine and this build offer; the environment variable
// QUERYSEG_CPU_CAPABILITY (portable, avx2, avx512) lowers it. Read once.
CpuCapability cpu_capability();

const char* cpu_capability_name(CpuCapability capability);

// The variant of a kernel table that this machine uses: QUERYSEG_SELECT(kMsDeformAttn).
#if QUERYSEG_X86_KERNELS
#define QUERYSEG_SELECT(table)                                \
  (cpu_capability() == CpuCapability::kAvx512 ? avx512::table \
   : cpu_capability() == CpuCapability::kAvx2 ? avx2::table   \
                                              : portable::table)
#else
#define QUERYSEG_SELECT(table) (portable::table)
#endif

}  // namespace queryseg
