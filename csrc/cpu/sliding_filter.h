// A separable filter of four taps over channels-last rows, with what is done to its results, in one pass.
//
// A few pixels at a time, sixteen channels at a time: a pixel's column sum is taken from four rows of the image, and
// the last four column sums stay in registers. Nothing but rows of the image is read and nothing but results written.
#pragma once
#include "scalar.h"

namespace speak::cpu {
namespace {

constexpr int64_t kSlidingTaps = 4;

// kLanes values of A side by side. The compiler's vector types: arrays of this size it would keep in memory.
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

inline bool can_slide(int64_t column_taps, int64_t row_taps, int64_t channels) {
  return column_taps == kSlidingTaps && row_taps == kSlidingTaps && channels > 0 && channels % kLanes == 0;
}

// Rows row .. row + 3 of an image of `height` rows, with their taps. One that lies outside has tap zero and points at
// one that does not; where all do, there is nothing to read and `width` is 0.
template <class T> struct FourRows {
  using A = Accumulate<T>;
  const T* rows[kSlidingTaps];
  A taps[kSlidingTaps];
  int64_t width;

  FourRows(const T* image, const A* all, int64_t row, int64_t height, int64_t row_size, int64_t width) : width(width) {
    const int64_t near = std::clamp<int64_t>(row, 0, std::max<int64_t>(0, height - 1));
    if (row + kSlidingTaps <= 0 || row >= height) this->width = 0;
    for (int64_t k = 0; k < kSlidingTaps; ++k) {
      const bool there = row + k >= 0 && row + k < height;
      rows[k] = image + (there ? row + k : near) * row_size;
      taps[k] = there ? all[k] : A(0);
    }
  }
};

// Filters `count` results of a row, the first of which covers pixels first .. first + 3 (zero where outside of it),
// and gives them to the sink: prepare(c) before channels c .. c + 15, then take(values, result, c).
// `state` has room for three values a channel.
template <class T, class Sink, class A = Accumulate<T>>
SPEAK_ROWS void slide(FourRows<T> from, const A* row_taps, int64_t channels, int64_t first, int64_t count,
                      A* __restrict state, const Sink& given) {
  Sink sink = given;
  using V = Lanes<A>;
  const T *__restrict r0 = from.rows[0], *__restrict r1 = from.rows[1], *__restrict r2 = from.rows[2],
          *__restrict r3 = from.rows[3];
  const A t0 = from.taps[0], t1 = from.taps[1], t2 = from.taps[2], t3 = from.taps[3];
  const A f0 = row_taps[0], f1 = row_taps[1], f2 = row_taps[2], f3 = row_taps[3];
  constexpr int64_t together = 4;  // pixels: more are further apart than what is fetched ahead
  const int64_t end = first + count + kSlidingTaps - 1;
  std::fill(state, state + 3 * channels, A(0));
  for (int64_t low = first; low < end; low += together) {
    const int64_t high = std::min(end, low + together);
    for (int64_t c = 0; c < channels; c += kLanes) {
      V a, b, d;
      read_lanes(a, state + c);
      read_lanes(b, state + channels + c);
      read_lanes(d, state + 2 * channels + c);
      sink.prepare(c);
      for (int64_t p = low; p < high; ++p) {
        V v = {};
        if (p >= 0 && p < from.width) {
          const int64_t i = p * channels + c;
          V v0, v1, v2, v3;
          __builtin_prefetch(r3 + i + kRow);  // the one row that no cache holds yet
          read_lanes(v0, r0 + i);
          read_lanes(v1, r1 + i);
          read_lanes(v2, r2 + i);
          read_lanes(v3, r3 + i);
          v = (v0 * t0 + v1 * t1) + (v2 * t2 + v3 * t3);
        }
        const V sum = (a * f0 + b * f1) + (d * f2 + v * f3);
        const int64_t result = p - first - (kSlidingTaps - 1);
        if (result >= 0) sink.take(sum, result, c);
        a = b;
        b = d;
        d = v;
      }
      write_lanes(state + c, a);
      write_lanes(state + channels + c, b);
      write_lanes(state + 2 * channels + c, d);
    }
  }
}

}  // namespace
}  // namespace speak::cpu
