#include "common/cpu/capability.h"

#include <cstdlib>
#include <cstring>

#include "common/cpu/isa.h"

#if QUERYSEG_X86_KERNELS
#include <cpuid.h>
#endif

namespace queryseg {
namespace {

#if QUERYSEG_X86_KERNELS
// Conversion of half precision, which __builtin_cpu_supports of Clang 16 and older does not know.
bool supports_f16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

CpuCapability best_capability() {
#if QUERYSEG_X86_KERNELS
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && supports_f16c();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) {
    return CpuCapability::kAvx512;
  }
  if (avx2) {
    return CpuCapability::kAvx2;
  }
#endif
  return CpuCapability::kPortable;
}

CpuCapability chosen_capability() {
  const CpuCapability best = best_capability();
  const char* wanted = std::getenv("QUERYSEG_CPU_CAPABILITY");
  for (int level = 0; wanted != nullptr && level < static_cast<int>(best); ++level) {
    const auto lower = static_cast<CpuCapability>(level);
    if (std::strcmp(wanted, cpu_capability_name(lower)) == 0) {
      return lower;
    }
  }
  return best;
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability chosen = chosen_capability();
  return chosen;
}

const char* cpu_capability_name(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAvx512:
      return "avx512";
    case CpuCapability::kAvx2:
      return "avx2";
    default:
      return "portable";
  }
}

}  // namespace queryseg
