// Derivatives of the fused epilogue (without its blur) on CPU, in one pass over the gradients.
//
// Work is cut into pieces of a fixed number of pixels. Each piece leaves its sums by channel in double precision, and
// they are added up in order afterwards: the result does not depend on the number of threads.
#include "scalar.h"

namespace speak::cpu {
namespace {

template <class T> struct Backward {
  using A = typename Accumulate<T>::type;
  int64_t channels, pixels;
  const T *dy, *dscaled, *x, *y;
  const A *demodulation, *next_styles;
  A slope, gain, limit;
  T* dx;
};

// Sums by channel: of dt * x, of dt, and of dscaled * y.
constexpr int kSums = 3;

template <class T, class A = typename Accumulate<T>::type>
void channels_last(const Backward<T>& b, int64_t n, int64_t pixel, int64_t count, A* dnoise, A* sums, A* scratch) {
  const int64_t C = b.channels, step = std::max<int64_t>(1, kRow / C), size = step * C;
  const A *__restrict d = b.demodulation + n * C, *__restrict s = b.next_styles ? b.next_styles + n * C : nullptr;
  A *__restrict by_x = sums, *__restrict plain = sums + C, *__restrict by_y = sums + 2 * C;
  for (int64_t first = 0; first < count; first += step) {
    const int64_t pieces = std::min(step, count - first), at = (n * b.pixels + pixel + first) * C, all = pieces * C;
    const A* gy = b.dy ? widen(b.dy + at, scratch, all) : nullptr;
    const A* gs = b.dscaled ? widen(b.dscaled + at, scratch + size, all) : nullptr;
    const A* xs = widen(b.x + at, scratch + 2 * size, all);
    const A* ys = widen(b.y + at, scratch + 3 * size, all);
    A* out = row_for(b.dx + at, scratch + 4 * size);
    for (int64_t p = 0; p < pieces; ++p) {
      const A *__restrict gyp = gy ? gy + p * C : nullptr, *__restrict gsp = gs ? gs + p * C : nullptr;
      const A *__restrict xp = xs + p * C, *__restrict yp = ys + p * C;
      A *__restrict o = out + p * C, *__restrict dt = scratch + 5 * size;
      if (gyp && gsp)
        for (int64_t c = 0; c < C; ++c) {
          dt[c] = (gyp[c] + gsp[c] * s[c]) * slope_at(yp[c], b.slope, b.gain, b.limit);
          by_y[c] += gsp[c] * yp[c];
        }
      else if (gsp)
        for (int64_t c = 0; c < C; ++c) {
          dt[c] = gsp[c] * s[c] * slope_at(yp[c], b.slope, b.gain, b.limit);
          by_y[c] += gsp[c] * yp[c];
        }
      else
        for (int64_t c = 0; c < C; ++c) dt[c] = gyp[c] * slope_at(yp[c], b.slope, b.gain, b.limit);
      for (int64_t c = 0; c < C; ++c) {
        o[c] = dt[c] * d[c];
        by_x[c] += dt[c] * xp[c];
        plain[c] += dt[c];
      }
      if (dnoise) {
        A lanes[8] = {}, total = 0;
        int64_t c = 0;
        for (; c + 8 <= C; c += 8)
          for (int64_t k = 0; k < 8; ++k) lanes[k] += dt[c + k];
        for (; c < C; ++c) total += dt[c];
        for (A lane : lanes) total += lane;
        dnoise[first + p] += total;
      }
    }
    put(b.dx + at, out, all);
  }
}

template <class T, class A = typename Accumulate<T>::type>
void planar(const Backward<T>& b, int64_t n, int64_t pixel, int64_t count, A* dnoise, A* sums, A* scratch) {
  const int64_t C = b.channels;
  for (int64_t c = 0; c < C; ++c) {
    const A d = b.demodulation[n * C + c], s = b.next_styles ? b.next_styles[n * C + c] : A(0);
    A lanes[kSums][8] = {};
    for (int64_t first = 0; first < count; first += kRow) {
      const int64_t part = std::min(kRow, count - first), at = (n * C + c) * b.pixels + pixel + first;
      const A* __restrict gy = b.dy ? widen(b.dy + at, scratch, part) : nullptr;
      const A* __restrict gs = b.dscaled ? widen(b.dscaled + at, scratch + kRow, part) : nullptr;
      const A* __restrict xs = widen(b.x + at, scratch + 2 * kRow, part);
      const A* __restrict ys = widen(b.y + at, scratch + 3 * kRow, part);
      A* __restrict out = row_for(b.dx + at, scratch + 4 * kRow);
      A* __restrict dt = scratch + 5 * kRow;
      for (int64_t p = 0; p < part; ++p)
        dt[p] = ((gy ? gy[p] : A(0)) + (gs ? gs[p] * s : A(0))) * slope_at(ys[p], b.slope, b.gain, b.limit);
      auto add = [&](int64_t p, int64_t k) {
        out[p] = dt[p] * d;
        lanes[0][k] += dt[p] * xs[p];
        lanes[1][k] += dt[p];
        if (gs) lanes[2][k] += gs[p] * ys[p];
      };
      int64_t p = 0;
      for (; p + 8 <= part; p += 8)
        for (int64_t k = 0; k < 8; ++k) add(p + k, k);
      for (; p < part; ++p) add(p, p & 7);
      if (dnoise)
        for (int64_t q = 0; q < part; ++q) dnoise[first + q] += dt[q];
      put(b.dx + at, out, part);
    }
    for (int q = 0; q < kSums; ++q)
      for (A lane : lanes[q]) sums[q * C + c] += lane;
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> epilogue_backward(
    std::optional<Tensor> dy, std::optional<Tensor> dscaled, const Tensor& x, const Tensor& y,
    std::optional<Tensor> demodulation, std::optional<Tensor> next_styles, double slope, double gain, double clamp,
    int64_t noise_batch, bool with_bias) {
  check_image(x, "epilogue: x");
  check_same(y, x, "epilogue: y");
  check_activation(slope, gain, clamp);
  STD_TORCH_CHECK(dy.has_value() || dscaled.has_value(), "epilogue: there is no gradient to pass on");
  STD_TORCH_CHECK(!dscaled.has_value() || next_styles.has_value(), "epilogue: dscaled needs next_styles");
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  STD_TORCH_CHECK(noise_batch == 0 || noise_batch == 1 || noise_batch == batch,
                  "epilogue: noise_batch must be 0, 1 or the batch");
  const auto d = checked_vector(demodulation, "epilogue: demodulation", x, {batch, channels});
  const auto s = checked_vector(next_styles, "epilogue: next_styles", x, {batch, channels});
  if (dy.has_value()) check_same(*dy, x, "epilogue: dy");
  if (dscaled.has_value()) check_same(*dscaled, x, "epilogue: dscaled");
  auto [held_pair, layout_pair] = dense(x);
  const Tensor held = held_pair;
  const Layout layout = layout_pair;
  const Tensor result = in_layout(y, layout);
  const auto gy = dy.has_value() ? std::optional<Tensor>(in_layout(*dy, layout)) : std::nullopt;
  const auto gs = dscaled.has_value() ? std::optional<Tensor>(in_layout(*dscaled, layout)) : std::nullopt;

  const auto zeros = [&](bool wanted, std::vector<int64_t> sizes) {
    return torch::stable::new_zeros(x, wanted ? sizes : std::vector<int64_t>{0}, accumulate_type(x));
  };
  Tensor dx = empty_in_layout(x, {batch, channels, height, width}, layout);
  Tensor dd = zeros(d.has_value(), {batch, channels}), db = zeros(with_bias, {channels});
  Tensor dz = zeros(noise_batch > 0, {noise_batch, height, width}), ds = zeros(gs.has_value(), {batch, channels});
  const int64_t pixels = height * width;
  if (batch * channels * pixels == 0) return {dx, dd, dz, db, ds};

  dispatch(x, "epilogue", [&](auto zero) {
    using T = decltype(zero);
    using A = typename Accumulate<T>::type;
    const std::vector<A> ones(d ? 0 : batch * channels, A(1));
    const Backward<T> b{channels, pixels, data_or_null<T>(gy), data_or_null<T>(gs), data<T>(held), data<T>(result),
                        d ? data<A>(*d) : ones.data(), data_or_null<A>(s), static_cast<A>(slope),
                        static_cast<A>(gain), limit_of<A>(clamp), mutable_data<T>(dx)};
    // About 16k values a piece: enough to be worth a task, and sums in A stay short.
    const int64_t span = layout == Layout::channels_last ? std::max<int64_t>(1, 16 * kRow / channels) : 4 * kRow;
    const int64_t pieces = (pixels + span - 1) / span, sums_each = kSums * channels;
    std::vector<double> partial(batch * pieces * sums_each);
    A* dnoise = noise_batch > 0 ? mutable_data<A>(dz) : nullptr;
    // With noise shared by the batch, a task takes a piece of every image, so that no two write the same noise.
    const bool shared = noise_batch == 1;
    parallel(shared ? pieces : batch * pieces, span * channels * (shared ? batch : 1), [&](int64_t begin, int64_t end) {
      std::vector<A> sums(sums_each), scratch(6 * std::max<int64_t>(kRow, channels));
      for (int64_t i = begin; i < end; ++i)
        for (int64_t n = shared ? 0 : i / pieces; n < (shared ? batch : i / pieces + 1); ++n) {
          const int64_t piece = i % pieces, pixel = piece * span, count = std::min(span, pixels - pixel);
          A* noise_row = dnoise ? dnoise + (shared ? 0 : n * pixels) + pixel : nullptr;
          std::fill(sums.begin(), sums.end(), A(0));
          if (layout == Layout::channels_last)
            channels_last<T>(b, n, pixel, count, noise_row, sums.data(), scratch.data());
          else
            planar<T>(b, n, pixel, count, noise_row, sums.data(), scratch.data());
          std::copy(sums.begin(), sums.end(), partial.begin() + (n * pieces + piece) * sums_each);
        }
    });
    std::vector<double> total(batch * sums_each), bias_total(channels);
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t piece = 0; piece < pieces; ++piece)
        for (int64_t i = 0; i < sums_each; ++i)
          total[n * sums_each + i] += partial[(n * pieces + piece) * sums_each + i];
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        const double* of = total.data() + n * sums_each + c;
        if (d) mutable_data<A>(dd)[n * channels + c] = static_cast<A>(of[0]);
        if (gs) mutable_data<A>(ds)[n * channels + c] = static_cast<A>(of[2 * channels]);
        bias_total[c] += of[channels];
      }
    if (with_bias)
      for (int64_t c = 0; c < channels; ++c) mutable_data<A>(db)[c] = static_cast<A>(bias_total[c]);
  });
  return {dx, dd, dz, db, ds};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) { m.impl("epilogue_backward", TORCH_BOX(&epilogue_backward)); }

}  // namespace speak::cpu
