#include "dynamic_conv/cpu/kernels.h"

#if QUERYSEG_X86_KERNELS
// clang-format off: the order of these headers has a meaning, see isa.h
#include "common/cpu/isa_avx2.h"
#include "common/cpu/vec.h"
#include "common/cpu/vec_math.h"
#include "common/cpu/narrow.h"
#include "dynamic_conv/cpu/matrix.h"
#include "dynamic_conv/cpu/prefetch.h"
#include "dynamic_conv/cpu/product.h"
#include "dynamic_conv/cpu/norm.h"
#include "dynamic_conv/cpu/kernel.h"
#include "common/cpu/isa_end.h"
#endif
