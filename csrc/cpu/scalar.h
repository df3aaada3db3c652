// Scalar types of the CPU kernels and the rows they are computed in.
//
// Kernels compute rows in float (double for double). Rows of bfloat16 are widened into a buffer that stays in the
// first-level cache and rounded back from one: rows of float and double are read and written where they lie.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../checks.h"

namespace speak::cpu {

struct bfloat16 {
  uint16_t bits;
};

template <class T> struct Accumulate { using type = T; };
template <> struct Accumulate<bfloat16> { using type = float; };

// Elements worked on at a time: two buffers of floats take a quarter of a usual first-level cache.
constexpr int64_t kRow = 1024;

inline const float* widen(const float* x, float*, int64_t) { return x; }
inline const double* widen(const double* x, double*, int64_t) { return x; }
inline const float* widen(const bfloat16* x, float* buffer, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i].bits) << 16;
    std::memcpy(buffer + i, &bits, sizeof bits);
  }
  return buffer;
}

// Where to compute a row that ends at y, and how it gets there.
inline float* row_for(float* y, float*) { return y; }
inline double* row_for(double* y, double*) { return y; }
inline float* row_for(bfloat16*, float* buffer) { return buffer; }

inline void put(float*, const float*, int64_t) {}
inline void put(double*, const double*, int64_t) {}

// Rounds to nearest even; a NaN stays a NaN.
inline uint32_t rounded_bits(uint32_t bits) {
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : rounded;
}

inline void put(bfloat16* y, const float* row, int64_t count) {
  int64_t i = 0;
#if defined(__SSE2__)  // compilers do not see that the halves can be packed with signed saturation
  const __m128i half = _mm_set1_epi32(0x7fff), one = _mm_set1_epi32(1), magnitude = _mm_set1_epi32(0x7fffffff),
                infinity = _mm_set1_epi32(0x7f800000), quiet = _mm_set1_epi32(0x7fc00000);
  auto rounded = [&](__m128i bits) {
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), one);
    const __m128i sum = _mm_add_epi32(_mm_add_epi32(bits, half), odd);
    const __m128i nan = _mm_cmpgt_epi32(_mm_and_si128(bits, magnitude), infinity);
    return _mm_srai_epi32(_mm_or_si128(_mm_andnot_si128(nan, sum), _mm_and_si128(nan, quiet)), 16);
  };
  for (; i + 8 <= count; i += 8) {
    const __m128i low = rounded(_mm_castps_si128(_mm_loadu_ps(row + i)));
    const __m128i high = rounded(_mm_castps_si128(_mm_loadu_ps(row + i + 4)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm_packs_epi32(low, high));
  }
#endif
  for (; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, row + i, sizeof bits);
    y[i].bits = static_cast<uint16_t>(rounded_bits(bits) >> 16);
  }
}

template <class A> A activated(A t, A slope, A gain, A limit) {  // comparisons that let a NaN through
  t = (t > 0 ? t : t * slope) * gain;
  t = t < -limit ? -limit : t;
  return t > limit ? limit : t;
}

template <class A> A limit_of(double clamp) {
  return clamp >= 0 ? static_cast<A>(clamp) : std::numeric_limits<A>::infinity();
}

// The derivative of `activated` by t, seen from its result.
template <class A> A slope_at(A y, A slope, A gain, A limit) {
  const A inside = y < limit && y > -limit ? gain : A(0);
  return y > 0 ? inside : inside * slope;
}

// Calls f with a value of the C++ type that x holds.
template <class F> void dispatch(const Tensor& x, const char* name, F f) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return f(float());
    case ScalarType::Double: return f(double());
    case ScalarType::BFloat16: return f(bfloat16());
    default: STD_TORCH_CHECK(false, name, " on CPU is compiled for float32, float64 and bfloat16 only");
  }
}

template <class T> const T* data(const Tensor& x) { return static_cast<const T*>(x.const_data_ptr()); }
template <class T> T* mutable_data(const Tensor& x) { return static_cast<T*>(x.mutable_data_ptr()); }
template <class T> const T* data_or_null(const std::optional<Tensor>& x) {
  return x.has_value() ? data<T>(*x) : nullptr;
}

template <class F> void parallel(int64_t count, int64_t elements_each, F f) {
  const int64_t grain = elements_each > 0 ? (32768 + elements_each - 1) / elements_each : 1;
  if (count > 0) torch::stable::parallel_for(0, count, grain, f);
}

}  // namespace speak::cpu
