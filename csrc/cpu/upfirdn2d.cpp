// upfirdn2d on CPU: a row of output at a time, filtered down the columns and then along the row.
//
// Data is widened to rows with room for the padding on both sides, so that inner loops have no bounds to check.
// In channels-last data a step along the row is C elements; planar data is the same with one channel.
#include "sliding_filter.h"
#include "weighted_sum.h"

namespace speak::cpu {
namespace {

struct Axis {
  int64_t in, out, up, down, pad;  // pad before the first sample; may be negative
};

// Taps along one axis, already flipped for correlation and multiplied by the gain.
template <class A> struct Filter {
  std::vector<A> down_columns, along_rows;  // separable
  std::vector<A> whole;                     // else [taps_y, taps_x]
  int64_t taps_y, taps_x;
};

int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + floor_mod(-a, b)) / b; }

// f as one column times one row where it is such a product, exactly or to rounding: 4x4 filters made from [1,3,3,1]
// come as a matrix, and 8 taps are less work than 16.
template <class A>
Filter<A> filter_of(const A* f, int64_t taps_y, int64_t taps_x, bool separable, bool flip, A gain) {
  Filter<A> filter{{}, {}, {}, taps_y, taps_x};
  auto reversed = [&](std::vector<A> taps) {
    if (!flip) std::reverse(taps.begin(), taps.end());
    return taps;
  };
  if (separable) {
    filter.along_rows = filter.down_columns = reversed(std::vector<A>(f, f + taps_x));
  } else {
    const int64_t size = taps_y * taps_x;
    int64_t peak = 0;
    for (int64_t i = 1; i < size; ++i)
      if (std::abs(f[i]) > std::abs(f[peak])) peak = i;
    const int64_t row = peak / taps_x, column = peak % taps_x;
    bool product = std::isfinite(f[peak]) && f[peak] != 0;
    std::vector<A> columns(taps_y), rows(taps_x);
    for (int64_t k = 0; k < taps_y; ++k) columns[k] = f[k * taps_x + column];
    for (int64_t k = 0; k < taps_x; ++k) rows[k] = f[row * taps_x + k] / f[peak];
    const A tolerance = std::abs(f[peak]) * std::numeric_limits<A>::epsilon();
    for (int64_t i = 0; product && i < size; ++i)
      product = std::abs(columns[i / taps_x] * rows[i % taps_x] - f[i]) <= tolerance;
    if (product) {
      filter.down_columns = reversed(columns);
      filter.along_rows = reversed(rows);
    } else {
      filter.whole = reversed(std::vector<A>(f, f + size));
      for (A& tap : filter.whole) tap *= gain;
    }
  }
  for (A& tap : filter.down_columns) tap *= gain;
  return filter;
}

template <class A> SPEAK_ROWS void spread(const A* __restrict from, A* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[2 * i] = from[i];
}

template <class A> SPEAK_ROWS void every_second(const A* __restrict from, A* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
}

template <class T, class A = Accumulate<T>>
SPEAK_ROWS void write_row(const A* __restrict from, T* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store(to[i], from[i]);
}

template <class A> SPEAK_ROWS void add_row(const A* __restrict from, A* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

template <class A> struct Scratch {
  std::vector<A> phase, half[2];
  std::vector<const A*> sources;
  std::vector<A> weights;
};

// out[o] = sum_k taps[k] * samples[(o * down - pad + k) / up] over the k that hit a sample. `samples` may be read
// beyond the image as far as the filter reaches. Outputs o = first, first + up, ... share a phase of the filter.
template <class A>
void along_row(const A* samples, const A* taps, int64_t count, Axis x, int64_t stride, A* out, Scratch<A>& scratch) {
  for (int64_t first = 0; first < std::min(x.up, x.out); ++first) {
    const int64_t start = first * x.down - x.pad, outputs = ceil_div(x.out - first, x.up);
    scratch.sources.clear();
    scratch.weights.clear();
    for (int64_t k = floor_mod(-start, x.up); k < count; k += x.up) {
      scratch.sources.push_back(samples + (start + k) / x.up * stride);
      scratch.weights.push_back(taps[k]);
    }
    const int64_t inside = static_cast<int64_t>(scratch.sources.size());
    const auto sum = [&](A* to, int64_t length) {
      weighted_sum<A>(scratch.sources.data(), scratch.weights.data(), inside, to, length);
    };
    if (x.up == 1 && x.down == 1) {
      sum(out, outputs * stride);
    } else if (stride == 1 && x.up == 2 && x.down == 1) {
      scratch.phase.resize(outputs);
      sum(scratch.phase.data(), outputs);
      spread(scratch.phase.data(), out + first, outputs);
    } else if (stride == 1 && x.up == 1 && x.down == 2) {
      // even and odd samples apart, so that each tap reads a contiguous row
      const A* low = samples + start;
      const int64_t length = outputs + (count + 1) / 2;
      for (int64_t parity = 0; parity < 2; ++parity) {
        scratch.half[parity].resize(length);
        every_second(low + parity, scratch.half[parity].data(), outputs + (count - 1 - parity) / 2);
      }
      for (int64_t k = 0; k < count; ++k) scratch.sources[k] = scratch.half[k % 2].data() + k / 2;
      sum(out, outputs);
    } else {
      for (int64_t i = 0; i < outputs; ++i) {
        sum(out + (first + i * x.up) * stride, stride);
        for (const A*& source : scratch.sources) source += x.down * stride;
      }
    }
  }
}

// Results as they are; `to` is the first one.
template <class T> struct WriteRow {
  T* to;
  int64_t channels, row_size;
  bool stream;
  void prepare(int64_t) {}
  void take(const Lanes<Accumulate<T>>& v, int64_t row, int64_t pixel, int64_t c) {
    put_lanes(to + row * row_size + pixel * channels + c, v, stream);
  }
};

template <class T, class A = Accumulate<T>>
void run_sliding(const T* in, T* result, const Filter<A>& filter, Axis y, Axis x, int64_t images, int64_t channels) {
  const int64_t row_size = x.out * channels;
  const auto make_sink = [&](int64_t image, int64_t row, int64_t column, bool stream) {
    return WriteRow<T>{result + (image * y.out + row) * row_size + column * channels, channels, row_size, stream};
  };
  slide_images<T>({{{in}}, y.in, x.in, channels}, filter.down_columns.data(), filter.along_rows.data(), images,
                  y.pad, x.pad, y.out, x.out, channels, make_sink);
}

template <class T, class A = Accumulate<T>>
void run(const T* in, T* result, const Filter<A>& filter, Axis y, Axis x, int64_t planes, int64_t stride) {
  const int64_t row_size = x.in * stride, out_size = x.out * stride;
  // Room before and behind the samples for every tap of every output.
  const int64_t lowest = -x.pad, highest = (x.out - 1) * x.down - x.pad + filter.taps_x;
  const int64_t before = lowest < 0 ? ceil_div(-lowest, x.up) : 0;
  const int64_t behind = std::max<int64_t>(0, ceil_div(highest, x.up) + 2 - x.in);
  const bool separable = filter.whole.empty();
  parallel(planes * y.out, out_size * 4, [&](int64_t begin, int64_t end) {
    std::vector<A> padded((before + x.in + behind) * stride), row(out_size), part(separable ? 0 : out_size);
    std::vector<const T*> rows;
    std::vector<A> weights;
    Scratch<A> scratch;
    A* samples = padded.data() + before * stride;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / y.out, start = i % y.out * y.down - y.pad;
      rows.clear();
      weights.clear();
      if (!separable) std::fill(row.begin(), row.end(), A(0));
      for (int64_t k = floor_mod(-start, y.up); k < filter.taps_y; k += y.up) {
        const int64_t from = (start + k) / y.up;
        if (start + k < 0 || from >= y.in) continue;
        const T* source = in + (plane * y.in + from) * row_size;
        if (separable) {
          rows.push_back(source);
          weights.push_back(filter.down_columns[k]);
          continue;
        }
        const A one = 1;
        weighted_sum<T>(&source, &one, 1, samples, row_size);
        along_row<A>(samples, filter.whole.data() + k * filter.taps_x, filter.taps_x, x, stride, part.data(), scratch);
        add_row(part.data(), row.data(), out_size);
      }
      if (separable) {
        weighted_sum<T>(rows.data(), weights.data(), static_cast<int64_t>(rows.size()), samples, row_size);
        along_row<A>(samples, filter.along_rows.data(), filter.taps_x, x, stride, row.data(), scratch);
      }
      write_row<T>(row.data(), result + i * out_size, out_size);
    }
  });
}

Tensor upfirdn2d(const Tensor& x, const Tensor& f, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                 int64_t pad_x0, int64_t pad_x1, int64_t pad_y0, int64_t pad_y1, bool flip_filter, double gain) {
  check_image(x, "upfirdn2d: x");
  STD_TORCH_CHECK(f.dim() == 1 || f.dim() == 2, "upfirdn2d: f must be [taps] or [FH, FW]");
  STD_TORCH_CHECK(std::isfinite(gain), "upfirdn2d: gain must be finite");
  const bool separable = f.dim() == 1;
  const int64_t taps_y = f.size(0), taps_x = separable ? f.size(0) : f.size(1);
  const auto taps = separable ? checked_vector(f, "upfirdn2d: f", x, {taps_y})
                              : checked_vector(f, "upfirdn2d: f", x, {taps_y, taps_x});
  const Axis vertical{x.size(2), filtered_size(x.size(2), up_y, down_y, pad_y0, pad_y1, taps_y), up_y, down_y, pad_y0};
  const Axis horizontal{x.size(3), filtered_size(x.size(3), up_x, down_x, pad_x0, pad_x1, taps_x), up_x, down_x,
                        pad_x0};
  auto [held, layout] = dense(x);
  Tensor y = empty_in_layout(x, {x.size(0), x.size(1), vertical.out, horizontal.out}, layout);
  if (y.numel() == 0) return y;
  dispatch(x, "upfirdn2d", [&, &held = held, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    const bool last = layout == Layout::channels_last;
    const auto filter = filter_of<A>(data<A>(*taps), taps_y, taps_x, separable, flip_filter, static_cast<A>(gain));
    if (last && up_x * up_y * down_x * down_y == 1 &&
        can_slide(filter.down_columns.size(), filter.along_rows.size(), x.size(1)))
      return run_sliding<T>(data<T>(held), mutable_data<T>(y), filter, vertical, horizontal, x.size(0), x.size(1));
    run<T>(data<T>(held), mutable_data<T>(y), filter, vertical, horizontal,
           last ? x.size(0) : x.size(0) * x.size(1), last ? x.size(1) : 1);
  });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) { m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d)); }

}  // namespace speak::cpu
