#if QUERYSEG_VEC_BITS > 128
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef QUERYSEG_ISA
#undef QUERYSEG_VEC_BITS
