#include "instance_deform_attn/cpu/kernels.h"
#include "instance_deform_attn/cpu/maps.h"

#if QUERYSEG_X86_KERNELS
// clang-format off: the order of these headers has a meaning, see isa.h
#include "common/cpu/isa_avx512.h"
#include "common/cpu/vec.h"
#include "instance_deform_attn/cpu/lanes.h"
#include "instance_deform_attn/cpu/banks.h"
#include "instance_deform_attn/cpu/layers.h"
#include "instance_deform_attn/cpu/row_codes.h"
#include "instance_deform_attn/cpu/attention.h"
#include "instance_deform_attn/cpu/slots.h"
#include "instance_deform_attn/cpu/gradients.h"
#include "instance_deform_attn/cpu/rows.h"
#include "instance_deform_attn/cpu/kernel.h"
#include "common/cpu/isa_end.h"
#endif
