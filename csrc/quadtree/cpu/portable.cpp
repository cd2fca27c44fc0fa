#include "quadtree/cpu/kernels.h"

// clang-format off: the order of these headers has a meaning, see isa.h
#include "common/cpu/isa_portable.h"
#include "common/cpu/vec.h"
#include "quadtree/cpu/kernel.h"
#include "common/cpu/isa_end.h"
