// 16-bit number types and their conversions. Free of torch and of CUDA headers, so that the same
// file serves the CPU kernels, nvcc, NVRTC and the host-side emulation of the CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define QUERYSEG_HD __host__ __device__ __forceinline__
#else
#define QUERYSEG_HD inline
#endif

namespace queryseg {

struct half_t {
  unsigned short bits;
};

struct bfloat16_t {
  unsigned short bits;
};

QUERYSEG_HD unsigned int float_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  unsigned int bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

QUERYSEG_HD float bits_float(unsigned int bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

QUERYSEG_HD float to_compute(float value) {
  return value;
}

QUERYSEG_HD double to_compute(double value) {
  return value;
}

QUERYSEG_HD float to_compute(bfloat16_t value) {
  return bits_float(static_cast<unsigned int>(value.bits) << 16);
}

QUERYSEG_HD float to_compute(half_t value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  // Shift exponent and mantissa into place, then let a multiplication by 2^112 re-bias the
  // exponent: it also normalises subnormals. Infinities and NaNs need the exponent set by hand.
  const unsigned int sign = static_cast<unsigned int>(value.bits & 0x8000u) << 16;
  const unsigned int magnitude = static_cast<unsigned int>(value.bits & 0x7fffu) << 13;
  const float scaled = bits_float(magnitude) * bits_float(0x77800000u);
  const unsigned int special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return bits_float(float_bits(scaled) | special | sign);
#endif
}

template <typename T>
struct Rounding;  // Rounding<T>::to(x): the nearest T, ties to even.

template <>
struct Rounding<float> {
  QUERYSEG_HD static float to(float value) { return value; }
};

template <>
struct Rounding<double> {
  QUERYSEG_HD static double to(double value) { return value; }
};

template <>
struct Rounding<bfloat16_t> {
  QUERYSEG_HD static bfloat16_t to(float value) {
    const unsigned int bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
      return {0x7fc0};
    }
    return {static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  }
};

template <>
struct Rounding<half_t> {
  QUERYSEG_HD static half_t to(float value) {
#if defined(__CUDA_ARCH__)
    half_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const unsigned int bits = float_bits(value);
    const unsigned int sign = (bits >> 16) & 0x8000u;
    const unsigned int magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      return {static_cast<unsigned short>(sign | 0x7e00u)};
    }
    if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
      return {static_cast<unsigned short>(sign | 0x7c00u)};
    }
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns and rounds the mantissa
      const unsigned int aligned = float_bits(bits_float(magnitude) + 0.5f);
      return {static_cast<unsigned short>(sign | (aligned - 0x3f000000u))};
    }
    const unsigned int rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<unsigned short>(sign | (rounded >> 13))};
#endif
  }
};

// The type that values of type T are computed and accumulated in.
template <typename T>
struct Compute {
  using type = float;
};

template <>
struct Compute<double> {
  using type = double;
};

}  // namespace queryseg
