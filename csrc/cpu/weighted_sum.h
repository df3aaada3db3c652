// The inner loop of every FIR filter: out[i] = sum over k of taps[k] * in[k][i].
#pragma once
#include "scalar.h"

namespace speak::cpu {
namespace {

// Four rows at once; those that are not there have tap zero and point at one that is.
template <class T, bool add, class A = Accumulate<T>>
SPEAK_ROWS void weighted_sum4(const T* const* in, const A* taps, A* __restrict out, int64_t count) {
  const T *__restrict a = in[0], *__restrict b = in[1], *__restrict c = in[2], *__restrict d = in[3];
  const A ta = taps[0], tb = taps[1], tc = taps[2], td = taps[3];
  for (int64_t i = 0; i < count; ++i) {
    const A sum = (load(a[i]) * ta + load(b[i]) * tb) + (load(c[i]) * tc + load(d[i]) * td);
    out[i] = add ? out[i] + sum : sum;
  }
}

template <class T, class A = Accumulate<T>>
SPEAK_ROWS void weighted_sum2(const T* const* in, const A* taps, A* __restrict out, int64_t count) {
  const T *__restrict a = in[0], *__restrict b = in[1];
  const A ta = taps[0], tb = taps[1];
  for (int64_t i = 0; i < count; ++i) out[i] = load(a[i]) * ta + load(b[i]) * tb;
}

template <class T, class A = Accumulate<T>>
void weighted_sum(const T* const* in, const A* taps, int64_t rows, A* out, int64_t count) {
  if (rows <= 0) std::fill(out, out + count, A(0));
  if (rows == 2) return weighted_sum2<T>(in, taps, out, count);
  for (int64_t first = 0; first < rows; first += 4) {
    const T* four[4];
    A weights[4];
    for (int64_t k = 0; k < 4; ++k) {
      const bool there = first + k < rows;
      four[k] = in[there ? first + k : first];
      weights[k] = there ? taps[first + k] : A(0);
    }
    if (first == 0)
      weighted_sum4<T, false>(four, weights, out, count);
    else
      weighted_sum4<T, true>(four, weights, out, count);
  }
}

}  // namespace
}  // namespace speak::cpu
