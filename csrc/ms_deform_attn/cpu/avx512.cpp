#include "ms_deform_attn/cpu/kernels.h"

#if QUERYSEG_X86_KERNELS
// clang-format off: the order of these headers has a meaning, see isa.h
#include "common/cpu/isa_avx512.h"
#include "common/cpu/vec.h"
#include "common/cpu/narrow.h"
#include "ms_deform_attn/cpu/kernel.h"
#include "common/cpu/isa_end.h"
#endif
