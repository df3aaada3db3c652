// bias_act on CPU: one pass over [outer, C, inner], where inner is 1 for channels-last data.
#include "streaming.h"

namespace speak::cpu {
namespace {

struct Shape {
  int64_t outer, channels, inner;
};

// How x lies in memory around dimension `dim`. Channels-last images with dim 1 have inner size 1.
Shape shape_around(const Tensor& x, int64_t dim, Layout layout) {
  if (layout == Layout::channels_last) return {x.size(0) * x.size(2) * x.size(3), x.size(1), 1};
  Shape shape{1, x.size(dim), 1};
  for (int64_t d = 0; d < dim; ++d) shape.outer *= x.size(d);
  for (int64_t d = dim + 1; d < x.dim(); ++d) shape.inner *= x.size(d);
  return shape;
}

std::pair<Tensor, Layout> dense_around(const Tensor& x, int64_t dim) {
  auto [held, layout] = dense(x);
  if (layout == Layout::channels_last && dim != 1) return {torch::stable::contiguous(x), Layout::planar};
  return {held, layout};
}

// Rows of whole channel vectors.
template <class T, class A = Accumulate<T>>
SPEAK_ROWS void vectors(const T* __restrict x, const A* __restrict b, T* __restrict y, int64_t rows, int64_t channels,
                        Bend<A> bend) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c)
      store(y[r * channels + c], bend(load(x[r * channels + c]) + b[c]));
}

// A piece of one channel's plane.
template <class T, class A = Accumulate<T>>
SPEAK_ROWS void plane(const T* __restrict x, A bias, T* __restrict y, int64_t count, Bend<A> bend) {
  for (int64_t p = 0; p < count; ++p) store(y[p], bend(load(x[p]) + bias));
}

// A single row: with the loop over rows in here too, the compiler takes several side by side, and where rows are long
// the processor then no longer sees what to fetch ahead (half the speed from 512 bytes on).
template <class T, class A = Accumulate<T>>
SPEAK_ROWS void vector_backward(const T* __restrict dy, const T* __restrict y, T* __restrict dx, A* __restrict sum,
                                int64_t channels, Bend<A> bend) {
  for (int64_t c = 0; c < channels; ++c) {
    const A d = load(dy[c]) * bend.steepness(load(y[c]));
    store(dx[c], d);
    sum[c] += d;
  }
}

template <class T, class A = Accumulate<T>>
SPEAK_ROWS void plane_backward(const T* __restrict dy, const T* __restrict y, T* __restrict dx, A* __restrict lanes,
                               int64_t count, Bend<A> bend) {
  int64_t p = 0;
  for (; p + kLanes <= count; p += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) {
      const A d = load(dy[p + k]) * bend.steepness(load(y[p + k]));
      store(dx[p + k], d);
      lanes[k] += d;
    }
  for (; p < count; ++p) {
    const A d = load(dy[p]) * bend.steepness(load(y[p]));
    store(dx[p], d);
    lanes[0] += d;
  }
}

int64_t rows_at_once(const Shape& s) { return std::max<int64_t>(1, kRow / std::max<int64_t>(1, s.channels)); }

template <class T, class A = Accumulate<T>>
void forward(const T* x, const A* b, T* y, Shape s, Bend<A> bend) {
  const bool stream = goes_past_caches<T>(s.outer * s.channels * s.inner);
  if (s.inner == 1) {
    const int64_t rows = rows_at_once(s);
    parallel((s.outer + rows - 1) / rows, rows * s.channels, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i * rows * s.channels, here = std::min(rows, s.outer - i * rows);
        put_block(y + at, here * s.channels, stream,
                  [&](T* to) { vectors<T>(x + at, b, to, here, s.channels, bend); });
      }
    });
    return;
  }
  const int64_t blocks = (s.inner + kRow - 1) / kRow;
  parallel(s.outer * s.channels * blocks, std::min(s.inner, kRow), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i / blocks * s.inner + i % blocks * kRow, count = std::min(kRow, s.inner - i % blocks * kRow);
      put_block(y + at, count, stream,
                [&](T* to) { plane<T>(x + at, b[i / blocks % s.channels], to, count, bend); });
    }
  });
}

// Sums are taken over blocks of a fixed size and then added up in double, whatever the number of threads, so that db
// is the same on every run.
template <class T, class A = Accumulate<T>>
void backward(const T* dy, const T* y, T* dx, A* db, Shape s, Bend<A> bend) {
  const bool last = s.inner == 1;
  const int64_t span = last ? 16 * rows_at_once(s) : 1;  // vectors, or planes, that a sum covers
  const int64_t blocks = last ? (s.outer + span - 1) / span : s.outer;
  const bool stream = goes_past_caches<T>(s.outer * s.channels * s.inner);
  std::vector<double> partial(blocks * s.channels);
  if (last)
    parallel(blocks, span * s.channels, [&](int64_t begin, int64_t end) {
      std::vector<A> sum(s.channels);
      for (int64_t block = begin; block < end; ++block) {
        std::fill(sum.begin(), sum.end(), A(0));
        for (int64_t r = block * span; r < std::min(s.outer, (block + 1) * span); ++r) {
          const int64_t at = r * s.channels;
          put_block(dx + at, s.channels, stream, [&](T* to) {
            vector_backward<T>(dy + at, y + at, to, sum.data(), s.channels, bend);
          });
        }
        std::copy(sum.begin(), sum.end(), partial.begin() + block * s.channels);
      }
    });
  else
    parallel(s.outer * s.channels, s.inner, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t first = 0; first < s.inner; first += kRow) {
          A lanes[kLanes] = {};
          const int64_t at = i * s.inner + first, count = std::min(kRow, s.inner - first);
          put_block(dx + at, count, stream,
                    [&](T* to) { plane_backward<T>(dy + at, y + at, to, lanes, count, bend); });
          for (A lane : lanes) partial[i] += lane;
        }
    });
  if (!db) return;
  std::vector<double> total(s.channels);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t c = 0; c < s.channels; ++c) total[c] += partial[block * s.channels + c];
  for (int64_t c = 0; c < s.channels; ++c) db[c] = static_cast<A>(total[c]);
}

Tensor bias_act(const Tensor& x, std::optional<Tensor> b, int64_t dim, double slope, double gain, double clamp) {
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "bias_act: x of rank ", x.dim(), " has no dimension ", dim);
  check_activation(slope, gain, clamp);
  auto [held, layout] = dense_around(x, dim);
  const auto bias = checked_vector(b, "bias_act: b", x, {x.size(dim)});
  Tensor y = torch::stable::empty_like(held);
  if (x.numel() == 0) return y;
  dispatch(x, "bias_act", [&, &held = held, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    const std::vector<A> zeros(bias ? 0 : x.size(dim));
    forward<T>(data<T>(held), bias ? data<A>(*bias) : zeros.data(), mutable_data<T>(y),
               shape_around(held, dim, layout), bend_for<T>(slope, gain, clamp));
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_backward(const Tensor& dy, const Tensor& y, int64_t dim, double slope,
                                             double gain, double clamp, bool with_bias) {
  STD_TORCH_CHECK(dim >= 0 && dim < y.dim(), "bias_act: y of rank ", y.dim(), " has no dimension ", dim);
  check_activation(slope, gain, clamp);
  check_same(dy, y, "bias_act: the gradient");
  auto [held, layout] = dense_around(y, dim);
  const Tensor gradient = in_layout(dy, layout);
  Tensor dx = torch::stable::empty_like(held);
  Tensor db = torch::stable::new_zeros(y, std::vector<int64_t>{with_bias ? y.size(dim) : 0}, accumulate_type(y));
  if (y.numel() == 0) return {dx, db};
  dispatch(y, "bias_act", [&, &held = held, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    backward<T>(data<T>(gradient), data<T>(held), mutable_data<T>(dx), with_bias ? mutable_data<A>(db) : nullptr,
                shape_around(held, dim, layout), bend_for<T>(slope, gain, clamp));
  });
  return {dx, db};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
}

}  // namespace speak::cpu
