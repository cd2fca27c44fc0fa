// The instruction-set variants of the CPU kernels.
//
// Every op compiles its kernel header three times, in portable.cpp, avx2.cpp and avx512.cpp. Each
// file includes the standard headers first, then opens a region (isa_avx2.h, isa_avx512.h,
// isa_portable.h) that switches the target instruction set and defines
//   QUERYSEG_ISA       the namespace of the variant, so that variants never share a symbol,
//   QUERYSEG_VEC_BITS  the vector width that vec.h implements,
// and closes it with isa_end.h. Functions of the standard library stay outside the region: a copy
// of them compiled for AVX-512 could otherwise be the one the linker keeps for everybody.
#pragma once

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define QUERYSEG_X86_KERNELS 1
#else
#define QUERYSEG_X86_KERNELS 0
#endif
