// Half and bfloat16 as their bits; both round to the nearest, ties to even, as the GPU's conversions do.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
  if (rest >= 0x7c00) return float_of(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinite or NaN
  return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));               // scales denormals right, too
}

inline __half __float2half_rn(float value) {
  const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000;
  uint32_t rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return {uint16_t(sign | 0x7e00)};   // NaN
  if (rest >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // rounds to 65536 or more
  if (rest < 0x38800000)  // below half's smallest normal number: let float's own rounding do it
    return {uint16_t(sign | (bits_of(float_of(rest) + 0.5f) - bits_of(0.5f)))};
  rest += 0xfff + (rest >> 13 & 1);
  return {uint16_t(sign | (rest - 0x38000000) >> 13)};
}

inline float __bfloat162float(__nv_bfloat16 b) { return float_of(uint32_t(b.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
