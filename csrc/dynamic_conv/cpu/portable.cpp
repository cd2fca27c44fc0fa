#include "dynamic_conv/cpu/kernels.h"

// clang-format off: the order of these headers has a meaning, see isa.h
#include "common/cpu/isa_portable.h"
#include "common/cpu/vec.h"
#include "common/cpu/vec_math.h"
#include "common/cpu/narrow.h"
#include "dynamic_conv/cpu/matrix.h"
#include "dynamic_conv/cpu/prefetch.h"
#include "dynamic_conv/cpu/product.h"
#include "dynamic_conv/cpu/norm.h"
#include "dynamic_conv/cpu/kernel.h"
#include "common/cpu/isa_end.h"
