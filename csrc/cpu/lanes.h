// Vectors of kLanes values, for loops that keep some of them in registers.
#pragma once
#include "scalar.h"

namespace speak::cpu {
namespace {

// kLanes values of A side by side: the compiler's vector types: arrays of this size it would keep in memory.
template <class A> struct LanesOf;
template <> struct LanesOf<float> { typedef float type __attribute__((vector_size(4 * kLanes))); };
template <> struct LanesOf<double> { typedef double type __attribute__((vector_size(8 * kLanes))); };
template <class A> using Lanes = typename LanesOf<A>::type;
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));

// By reference, not by value: how vectors are passed depends on the instruction set.
template <class V, class A> inline void read_lanes(V& v, const A* from) { std::memcpy(&v, from, sizeof v); }
template <class V, class A> inline void write_lanes(A* to, const V& v) { std::memcpy(to, &v, sizeof v); }

inline void read_lanes(Lanes<float>& v, const bfloat16* from) {
  uint32_t wide[kLanes];  // a loop: __builtin_convertvector is taken apart by gcc
  for (int64_t k = 0; k < kLanes; ++k) wide[k] = from[k].bits;
  Words bits;
  std::memcpy(&bits, wide, sizeof bits);
  bits <<= 16;
  std::memcpy(&v, &bits, sizeof v);
}

inline void write_lanes(bfloat16* to, const Lanes<float>& v) {  // as `store` does
  Words bits;
  std::memcpy(&bits, &v, sizeof bits);
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u), nan = Words{} + 0x7fc00000u;
  const Words kept = ((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16;
  const Halves halves = __builtin_convertvector(kept, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

}  // namespace
}  // namespace speak::cpu
