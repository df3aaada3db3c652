// bias_act on CPU: one pass over [outer, C, inner], where inner is 1 for channels-last data.
#include "scalar.h"

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

template <class T, class A = typename Accumulate<T>::type>
void forward(const T* x, const A* b, T* y, Shape s, A slope, A gain, A limit) {
  if (s.inner == 1) {  // rows of whole channel vectors
    const int64_t rows = std::max<int64_t>(1, kRow / std::max<int64_t>(1, s.channels));
    parallel((s.outer + rows - 1) / rows, rows * s.channels, [&](int64_t begin, int64_t end) {
      std::vector<A> in(rows * s.channels), out(rows * s.channels);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * rows, count = std::min(rows, s.outer - first), size = count * s.channels;
        const A* t = widen(x + first * s.channels, in.data(), size);
        A* o = row_for(y + first * s.channels, out.data());
        for (int64_t r = 0; r < count; ++r) {
          const A* __restrict tr = t + r * s.channels;
          A* __restrict outr = o + r * s.channels;
          if (b)
            for (int64_t c = 0; c < s.channels; ++c) outr[c] = activated(tr[c] + b[c], slope, gain, limit);
          else
            for (int64_t c = 0; c < s.channels; ++c) outr[c] = activated(tr[c], slope, gain, limit);
        }
        put(y + first * s.channels, o, size);
      }
    });
    return;
  }
  const int64_t blocks = (s.inner + kRow - 1) / kRow;  // a channel's plane in pieces
  parallel(s.outer * s.channels * blocks, std::min(s.inner, kRow), [&](int64_t begin, int64_t end) {
    A in[kRow], out[kRow];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / blocks, first = i % blocks * kRow, count = std::min(kRow, s.inner - first);
      const A bias = b ? b[plane % s.channels] : A(0);
      const A* __restrict t = widen(x + plane * s.inner + first, in, count);
      T* target = y + plane * s.inner + first;
      A* __restrict o = row_for(target, out);
      for (int64_t p = 0; p < count; ++p) o[p] = activated(t[p] + bias, slope, gain, limit);
      put(target, o, count);
    }
  });
}

// Partial sums are kept for each block, whatever the number of threads, so that db is the same on every run.
template <class T, class A = typename Accumulate<T>::type>
void backward(const T* dy, const T* y, T* dx, A* db, Shape s, A slope, A gain, A limit) {
  const bool vectors = s.inner == 1;
  const int64_t rows = std::max<int64_t>(1, kRow / std::max<int64_t>(1, s.channels));
  const int64_t row_groups = 16;  // blocks a sum covers: few enough partial sums to add up fast
  if (vectors) {
    const int64_t span = rows * row_groups, blocks = (s.outer + span - 1) / span;
    std::vector<double> partial(db ? blocks * s.channels : 0);
    parallel(blocks, span * s.channels, [&](int64_t begin, int64_t end) {
      std::vector<A> in(rows * s.channels), seen(rows * s.channels), out(rows * s.channels), sum(s.channels);
      for (int64_t block = begin; block < end; ++block) {
        std::fill(sum.begin(), sum.end(), A(0));
        const int64_t last = std::min(s.outer, (block + 1) * span);
        for (int64_t first = block * span; first < last; first += rows) {
          const int64_t count = std::min(rows, last - first), at = first * s.channels, size = count * s.channels;
          const A* g = widen(dy + at, in.data(), size);
          const A* v = widen(y + at, seen.data(), size);
          A* o = row_for(dx + at, out.data());
          for (int64_t r = 0; r < count; ++r) {
            const A *__restrict gr = g + r * s.channels, *__restrict vr = v + r * s.channels;
            A *__restrict outr = o + r * s.channels, *__restrict total = sum.data();
            for (int64_t c = 0; c < s.channels; ++c) {
              const A d = gr[c] * slope_at(vr[c], slope, gain, limit);
              outr[c] = d;
              total[c] += d;
            }
          }
          put(dx + at, o, size);
        }
        if (db) std::copy(sum.begin(), sum.end(), partial.begin() + block * s.channels);
      }
    });
    if (db)
      for (int64_t c = 0; c < s.channels; ++c) {
        double total = 0;
        for (int64_t block = 0; block < blocks; ++block) total += partial[block * s.channels + c];
        db[c] = static_cast<A>(total);
      }
    return;
  }
  std::vector<double> partial(db ? s.outer * s.channels : 0);
  parallel(s.outer * s.channels, s.inner, [&](int64_t begin, int64_t end) {
    A in[kRow], seen[kRow], out[kRow];
    for (int64_t plane = begin; plane < end; ++plane) {
      double total = 0;
      for (int64_t first = 0; first < s.inner; first += kRow) {
        const int64_t count = std::min(kRow, s.inner - first), at = plane * s.inner + first;
        const A* __restrict g = widen(dy + at, in, count);
        const A* __restrict v = widen(y + at, seen, count);
        A* __restrict o = row_for(dx + at, out);
        A lanes[8] = {};  // eight sums side by side: a single one could not be vectorised without reordering
        int64_t p = 0;
        for (; p + 8 <= count; p += 8)
          for (int64_t k = 0; k < 8; ++k) {
            o[p + k] = g[p + k] * slope_at(v[p + k], slope, gain, limit);
            lanes[k] += o[p + k];
          }
        for (; p < count; ++p) lanes[p & 7] += o[p] = g[p] * slope_at(v[p], slope, gain, limit);
        for (A lane : lanes) total += lane;
        put(dx + at, o, count);
      }
      if (db) partial[plane] = total;
    }
  });
  if (db)
    for (int64_t c = 0; c < s.channels; ++c) {
      double total = 0;
      for (int64_t n = 0; n < s.outer; ++n) total += partial[n * s.channels + c];
      db[c] = static_cast<A>(total);
    }
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
    using A = typename Accumulate<T>::type;
    forward<T>(data<T>(held), data_or_null<A>(bias), mutable_data<T>(y), shape_around(held, dim, layout),
               static_cast<A>(slope), static_cast<A>(gain), limit_of<A>(clamp));
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
  Tensor db = with_bias ? torch::stable::new_zeros(y, std::vector<int64_t>{y.size(dim)}, accumulate_type(y))
                        : empty_vector(y, {0});
  if (y.numel() == 0) return {dx, db};
  dispatch(y, "bias_act", [&, &held = held, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = typename Accumulate<T>::type;
    backward<T>(data<T>(gradient), data<T>(held), mutable_data<T>(dx), with_bias ? mutable_data<A>(db) : nullptr,
                shape_around(held, dim, layout), static_cast<A>(slope), static_cast<A>(gain), limit_of<A>(clamp));
  });
  return {dx, db};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
}

}  // namespace speak::cpu
