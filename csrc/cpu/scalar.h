// Scalar types of the CPU kernels, and how their inner loops are compiled.
//
// Values are read into float (double for double), computed there and rounded back. Inner loops are functions over
// rows, marked SPEAK_ROWS: they are compiled for several instruction sets and the processor's own is taken when the
// library is loaded. They call nothing but the functions of this file.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "../checks.h"

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define SPEAK_ROWS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#else
#define SPEAK_ROWS
#endif

namespace speak::cpu {

struct bfloat16 {
  uint16_t bits;
};

template <class T> struct AccumulateOf { using type = T; };
template <> struct AccumulateOf<bfloat16> { using type = float; };
template <class T> using Accumulate = typename AccumulateOf<T>::type;

inline float load(float v) { return v; }
inline double load(double v) { return v; }
inline float load(bfloat16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline void store(float& to, float v) { to = v; }
inline void store(double& to, double v) { to = v; }
inline void store(bfloat16& to, float v) {  // to nearest even; a NaN stays a NaN
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  to.bits = static_cast<uint16_t>(((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : rounded) >> 16);
}

// An activation of one bend, with its gain and clamp.
template <class A> struct Bend {
  A slope, gain, limit;

  Bend(double slope, double gain, double clamp)
      : slope(static_cast<A>(slope)),
        gain(static_cast<A>(gain)),
        limit(clamp >= 0 ? static_cast<A>(clamp) : std::numeric_limits<A>::infinity()) {}

  // V is A, or a vector of them. Comparisons are ordered so that a NaN comes through.
  template <class V> void apply(V& t) const {
    const V bent = slope == 0 ? V{} : t * slope, most = V{} + limit, least = -most;  // relu of -infinity is 0
    t = (bent > t ? bent : t) * gain;
    t = least > t ? least : t;
    t = most < t ? most : t;
  }
  A operator()(A t) const {
    apply(t);
    return t;
  }

  // The derivative, seen from the result.
  A steepness(A y) const {
    const A inside = y < limit && y > -limit ? gain : A(0);
    return y > 0 ? inside : inside * slope;
  }
};

// The bend of data of type T: the limit rounded as results are, so that the backward pass knows a clamped one.
template <class T> Bend<Accumulate<T>> bend_for(double slope, double gain, double clamp) {
  Bend<Accumulate<T>> bend(slope, gain, clamp);
  T limit;
  store(limit, bend.limit);
  bend.limit = load(limit);
  return bend;
}

// Elements worked on at a time: a few buffers of this many floats fit a first-level cache.
constexpr int64_t kRow = 1024;

// Sums are kept side by side in this many lanes, since one alone could not be vectorised without reordering it.
constexpr int64_t kLanes = 16;

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

}  // namespace speak::cpu
