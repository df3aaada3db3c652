// A separable filter of four taps over channels-last rows, with what is done to its results, in one pass.
//
// Two rows of results, a few pixels and sixteen channels at a time: a pixel's column sums are taken from
// five rows of the image, and the last four stay in registers. Nothing but rows of the image is read and nothing but
// results written. Wide images go strip by strip, so that what is read again comes from a near cache.
#pragma once
#include <tuple>

#include "streaming.h"

namespace speak::cpu {

// For rounding to bfloat16: just below half of what is dropped, and a bfloat16 that is not a number. Not const: of
// constants gcc would make vectors anew for every result, with three instructions each.
inline uint32_t just_below_half = 0x7fff, not_a_number = 0x7fc0;

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
  const Words odd = bits << 15 >> 31, rounded = (bits + odd + just_below_half) >> 16;
  const Words kept = v == v ? rounded : Words{} + not_a_number;
  const Halves halves = __builtin_convertvector(kept, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// Writes past the caches where `stream` is set. `to` is at a multiple of 64 bytes.
template <class T, class V> inline void put_lanes(T* to, const V& v, bool) { write_lanes(to, v); }

#if defined(__SSE2__)
inline void put_lanes(float* to, const Lanes<float>& v, bool stream) {
  if (!stream) return write_lanes(to, v);
  __m128 quarters[kLanes / 4];  // the widest that every instruction set here can stream
  std::memcpy(quarters, &v, sizeof v);
  for (int64_t k = 0; k < kLanes / 4; ++k) _mm_stream_ps(to + 4 * k, quarters[k]);
}
#endif

inline bool can_slide(int64_t column_taps, int64_t row_taps, int64_t channels) {
  return column_taps == kSlidingTaps && row_taps == kSlidingTaps && channels > 0 && channels % kLanes == 0;
}

// How many results of a row are made before those of the next rows: their window stays in a near cache.
inline int64_t strip_width(int64_t width, int64_t pixel_bytes) {
  const int64_t most = std::max<int64_t>(16, (128 << 10) / (kSlidingTaps * pixel_bytes));
  const int64_t strips = (width + most - 1) / most;
  return (width + strips - 1) / strips;
}

// Channels-last images, whole or in parts: even and odd rows apart, or those again in even and odd columns.
template <class T> struct Parts {
  // [row parity][column parity]; for rows alone the second column stays empty; for whole images all but the first
  const T* part[2][2];
  int64_t height, width, channels;  // of an image
  int64_t spare;                    // pixels at the end of each row that belong to no image: of rows alone

  bool rows_apart() const { return part[1][0] != nullptr; }
  bool columns_apart() const { return part[0][1] != nullptr; }
  // Where a row's even columns begin, or all of them, and where its odd ones.
  std::pair<const T*, const T*> at(int64_t image, int64_t row) const {
    const int64_t odds = rows_apart() ? height / 2 : 0, parity = rows_apart() ? row % 2 : 0;
    const int64_t rows = parity ? odds : height - odds, place = image * rows + (rows_apart() ? row / 2 : row);
    if (!columns_apart()) return {part[parity][0] + place * (width + spare) * channels, nullptr};
    return {part[parity][0] + place * (width - width / 2) * channels, part[parity][1] + place * (width / 2) * channels};
  }
};

// The rows of an image that kRows (1 or 2) rows of results from `row` on are made of, with each one's taps. A row that
// lies outside has taps of zero and points at the nearest one, which is in the same windows: 0 * infinity is not 0.
template <class T, int kRows> struct Window {
  using A = Accumulate<T>;
  static constexpr int64_t kRead = kSlidingTaps + kRows - 1;
  const T *rows[kRead], *odd_columns[kRead];  // the second where columns come apart
  A taps[kRows][kRead];
  bool seen[kRows];  // whether any of its rows lies inside
  int64_t width;

  Window(const Parts<T>& from, int64_t image, const A* all, int64_t row) : width(from.width) {
    const int64_t height = from.height;
    for (int64_t k = 0; k < kRead; ++k) {
      const bool there = row + k >= 0 && row + k < height;
      const int64_t nearest = std::clamp<int64_t>(row + k, 0, std::max<int64_t>(0, height - 1));
      std::tie(rows[k], odd_columns[k]) = from.at(image, nearest);
      for (int64_t r = 0; r < kRows; ++r) taps[r][k] = there && k >= r && k < r + kSlidingTaps ? all[k - r] : A(0);
    }
    for (int64_t r = 0; r < kRows; ++r) seen[r] = row + r + kSlidingTaps > 0 && row + r < height;
  }
};

// The last three column sums of a row of results.
template <class V, class A> struct LastThree {
  V a, b, d;

  void read(const A* state, int64_t channels) {
    read_lanes(a, state);
    read_lanes(b, state + channels);
    read_lanes(d, state + 2 * channels);
  }
  void write(A* state, int64_t channels) const {
    write_lanes(state, a);
    write_lanes(state + channels, b);
    write_lanes(state + 2 * channels, d);
  }
  void push(const V& v) {
    a = b;
    b = d;
    d = v;
  }
};

// Filters `count` results of each row, the first of which covers pixels first .. first + 3 (zero where outside of it),
// and gives them to the sink: prepare(c) before channels c .. c + 15, then take(values, row, result, c).
// `state` has room for three values a channel and row.
template <class T, int kRows, bool apart, class Sink, class A = Accumulate<T>>
SPEAK_ROWS void slide(const Window<T, kRows>& from, const A* row_taps, int64_t channels, int64_t first, int64_t count,
                      A* __restrict state, const Sink& given) {
  Sink sink = given;
  using V = Lanes<A>;
  constexpr int64_t last = kSlidingTaps + kRows - 2;
  // `apart`: even and odd columns lie apart
  const T *__restrict r0 = from.rows[0], *__restrict r1 = from.rows[1], *__restrict r2 = from.rows[2],
          *__restrict r3 = from.rows[3], *__restrict r4 = from.rows[last];
  const T *__restrict o0 = from.odd_columns[0], *__restrict o1 = from.odd_columns[1],
          *__restrict o2 = from.odd_columns[2], *__restrict o3 = from.odd_columns[3],
          *__restrict o4 = from.odd_columns[last];
  const A t0 = from.taps[0][0], t1 = from.taps[0][1], t2 = from.taps[0][2], t3 = from.taps[0][3];
  const A n1 = from.taps[kRows - 1][1], n2 = from.taps[kRows - 1][2], n3 = from.taps[kRows - 1][3],
          n4 = from.taps[kRows - 1][last];
  const A f0 = row_taps[0], f1 = row_taps[1], f2 = row_taps[2], f3 = row_taps[3];
  constexpr int64_t together = 4;  // pixels: more are further apart than what is fetched ahead
  const bool upper_seen = from.seen[0], lower_seen = kRows > 1 && from.seen[kRows - 1];
  const int64_t end = first + count + kSlidingTaps - 1;
  std::fill(state, state + 3 * kRows * channels, A(0));
  for (int64_t low = first; low < end; low += together) {
    const int64_t high = std::min(end, low + together);
    for (int64_t c = 0; c < channels; c += kLanes) {
      LastThree<V, A> upper, lower;
      upper.read(state + c, channels);
      if (kRows > 1) lower.read(state + 3 * channels + c, channels);
      sink.prepare(c);
      for (int64_t p = low; p < high; ++p) {
        V v = {}, w = {};
        if (p >= 0 && p < from.width && (upper_seen || lower_seen)) {
          const bool odd = apart && p % 2;
          const int64_t i = (apart ? p / 2 : p) * channels + c;
          V v0, v1, v2, v3, v4;
          __builtin_prefetch((odd ? o4 : r4) + i + kRow);  // the rows that no cache holds yet
          if (kRows > 1) __builtin_prefetch((odd ? o3 : r3) + i + kRow);
          read_lanes(v0, (odd ? o0 : r0) + i);
          read_lanes(v1, (odd ? o1 : r1) + i);
          read_lanes(v2, (odd ? o2 : r2) + i);
          read_lanes(v3, (odd ? o3 : r3) + i);
          if (upper_seen) v = (v0 * t0 + v1 * t1) + (v2 * t2 + v3 * t3);
          if (lower_seen) {
            read_lanes(v4, (odd ? o4 : r4) + i);
            w = (v1 * n1 + v2 * n2) + (v3 * n3 + v4 * n4);
          }
        }
        const int64_t result = p - first - (kSlidingTaps - 1);
        if (result >= 0) {
          sink.take((upper.a * f0 + upper.b * f1) + (upper.d * f2 + v * f3), 0, result, c);
          if (kRows > 1) sink.take((lower.a * f0 + lower.b * f1) + (lower.d * f2 + w * f3), 1, result, c);
        }
        upper.push(v);
        if (kRows > 1) lower.push(w);
      }
      upper.write(state + c, channels);
      if (kRows > 1) lower.write(state + 3 * channels + c, channels);
    }
  }
}

// All results, [images, height, width, channels], of images x that lie pad_y, pad_x from the first result's corner.
// make_sink(image, row, column, stream): what takes the results from there on.
template <class T, class MakeSink, class A = Accumulate<T>>
void slide_images(const Parts<T>& x, const A* column_taps, const A* row_taps, int64_t images, int64_t pad_y,
                  int64_t pad_x, int64_t height, int64_t width, int64_t channels, const MakeSink& make_sink) {
  using Sink = decltype(make_sink(0, 0, 0, false));
  const int64_t step = strip_width(width, channels * sizeof(T));
  const int64_t strips = (width + step - 1) / step, pairs = (height + 1) / 2;
  const bool stream = goes_past_caches<T>(images * height * width * channels);
  parallel(images * strips * pairs, 2 * step * channels * kSlidingTaps, [&](int64_t begin, int64_t end) {
    std::vector<A> state(2 * 3 * channels);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % pairs * 2, column = i / pairs % strips * step, image = i / pairs / strips;
      const auto run = [&](auto rows) {
        constexpr int kRows = decltype(rows)::value;
        const Window<T, kRows> window(x, image, column_taps, row - pad_y);
        const auto slide_row = x.columns_apart() ? slide<T, kRows, true, Sink> : slide<T, kRows, false, Sink>;
        slide_row(window, row_taps, channels, column - pad_x, std::min(step, width - column), state.data(),
                  make_sink(image, row, column, stream));
      };
      if (row + 1 < height)
        run(std::integral_constant<int, 2>{});
      else
        run(std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace
}  // namespace speak::cpu
