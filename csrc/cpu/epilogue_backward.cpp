// Derivatives of the fused epilogue (without its blur) on CPU, in one pass over the gradients.
//
// Work is cut into pieces of a fixed number of pixels. Each piece leaves its sums by channel in double precision, and
// they are added up in order afterwards: the result does not depend on the number of threads.
#include "streaming.h"

namespace speak::cpu {
namespace {

template <class T> struct Backward {
  using A = Accumulate<T>;
  int64_t channels, pixels;
  const T *dy, *dscaled, *x, *y;
  const A *demodulation, *next_styles;
  Bend<A> bend;
  T* dx;
  bool stream;  // dx goes past the caches
};

// Sums by channel: of dt * x, of dt, and of dscaled * y.
constexpr int kSums = 3;

template <class A> inline A sum_of(const A* __restrict v, int64_t count) {
  A lanes[kLanes] = {}, total = 0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) lanes[k] += v[i + k];
  for (; i < count; ++i) total += v[i];
  for (A lane : lanes) total += lane;
  return total;
}

// `count` pixels, all channels. Which gradients there are is known at compile time: the inner loop has no branches.
template <class T, bool has_y, bool has_scaled, class A = Accumulate<T>>
SPEAK_ROWS void vectors(const T* __restrict dy, const T* __restrict dscaled, const T* __restrict x,
                        const T* __restrict y, const A* __restrict d, const A* __restrict s, T* __restrict dx,
                        A* __restrict dnoise, A* __restrict dt, A* __restrict sums, int64_t count, int64_t channels,
                        Bend<A> bend) {
  A *__restrict by_x = sums, *__restrict plain = sums + channels, *__restrict by_y = sums + 2 * channels;
  for (int64_t p = 0, first = 0; p < count; ++p, first += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t i = first + c;
      const A result = load(y[i]);
      A g = has_y ? load(dy[i]) : A(0);
      if (has_scaled) {
        const A gs = load(dscaled[i]);
        g += gs * s[c];
        by_y[c] += gs * result;
      }
      const A v = g * bend.steepness(result);
      dt[c] = v;
      store(dx[i], v * d[c]);
      by_x[c] += v * load(x[i]);
      plain[c] += v;
    }
    if (dnoise) dnoise[p] += sum_of(dt, channels);
  }
}

// A piece of one channel's plane; `lanes` holds the kSums sums side by side.
template <class T, bool has_y, bool has_scaled, class A = Accumulate<T>>
SPEAK_ROWS void plane(const T* __restrict dy, const T* __restrict dscaled, const T* __restrict x,
                      const T* __restrict y, A d, A s, T* __restrict dx, A* __restrict dnoise, A* __restrict lanes,
                      int64_t count, Bend<A> bend) {
  A *__restrict by_x = lanes, *__restrict plain = lanes + kLanes, *__restrict by_y = lanes + 2 * kLanes;
  for (int64_t first = 0; first < count; first += kLanes) {
    const int64_t here = std::min(kLanes, count - first);
    for (int64_t k = 0; k < here; ++k) {
      const int64_t p = first + k;
      const A result = load(y[p]);
      A g = has_y ? load(dy[p]) : A(0);
      if (has_scaled) {
        const A gs = load(dscaled[p]);
        g += gs * s;
        by_y[k] += gs * result;
      }
      const A v = g * bend.steepness(result);
      store(dx[p], v * d);
      by_x[k] += v * load(x[p]);
      plain[k] += v;
      if (dnoise) dnoise[p] += v;
    }
  }
}

// The gradients of `count` pixels from `pixel` on of image n; adds to `sums` and to dnoise where there is one.
template <class T, class A = Accumulate<T>>
void piece(const Backward<T>& b, Layout layout, int64_t n, int64_t pixel, int64_t count, A* dnoise, A* sums, A* dt) {
  const int64_t C = b.channels;
  const A* s = b.next_styles ? b.next_styles + n * C : nullptr;
  const auto run = [&](auto has_y, auto has_scaled) {
    constexpr bool Y = decltype(has_y)::value, S = decltype(has_scaled)::value;
    const auto from = [](const T* base, int64_t at) { return base ? base + at : nullptr; };
    if (layout == Layout::channels_last) {
      const int64_t step = b.stream ? std::max<int64_t>(1, kRow / C) : count;
      for (int64_t first = 0; first < count; first += step) {
        const int64_t at = (n * b.pixels + pixel + first) * C, here = std::min(step, count - first);
        put_block(b.dx + at, here * C, b.stream, [&](T* to) {
          vectors<T, Y, S>(from(b.dy, at), from(b.dscaled, at), b.x + at, b.y + at, b.demodulation + n * C, s, to,
                           dnoise ? dnoise + first : nullptr, dt, sums, here, C, b.bend);
        });
      }
      return;
    }
    for (int64_t c = 0; c < C; ++c) {
      A lanes[kSums * kLanes] = {};
      for (int64_t first = 0; first < count; first += kRow) {
        const int64_t at = (n * C + c) * b.pixels + pixel + first, here = std::min(kRow, count - first);
        put_block(b.dx + at, here, b.stream, [&](T* to) {
          plane<T, Y, S>(from(b.dy, at), from(b.dscaled, at), b.x + at, b.y + at, b.demodulation[n * C + c],
                         s ? s[c] : A(0), to, dnoise ? dnoise + first : nullptr, lanes, here, b.bend);
        });
      }
      for (int q = 0; q < kSums; ++q) sums[q * C + c] += sum_of(lanes + q * kLanes, kLanes);
    }
  };
  using yes = std::true_type;
  using no = std::false_type;
  if (b.dy && b.dscaled)
    run(yes{}, yes{});
  else if (b.dy)
    run(yes{}, no{});
  else
    run(no{}, yes{});
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
    using A = Accumulate<T>;
    const std::vector<A> ones(d ? 0 : batch * channels, A(1));
    const Backward<T> b{channels, pixels, data_or_null<T>(gy), data_or_null<T>(gs), data<T>(held), data<T>(result),
                        d ? data<A>(*d) : ones.data(), data_or_null<A>(s), bend_for<T>(slope, gain, clamp),
                        mutable_data<T>(dx), goes_past_caches<T>(x.numel())};
    // About 16k values a piece: enough to be worth a task, and sums in A stay short. At least 64 pixels, so that the
    // sums of all pieces stay small beside the data however many channels there are.
    const int64_t span = layout == Layout::channels_last ? std::max<int64_t>(64, 16 * kRow / channels) : 4 * kRow;
    const int64_t pieces = (pixels + span - 1) / span, sums_each = kSums * channels;
    std::vector<double> partial(batch * pieces * sums_each);
    A* dnoise = noise_batch > 0 ? mutable_data<A>(dz) : nullptr;
    // With noise shared by the batch, a task takes a piece of every image, so that no two write the same noise.
    const bool shared = noise_batch == 1;
    parallel(shared ? pieces : batch * pieces, span * channels * (shared ? batch : 1), [&](int64_t begin, int64_t end) {
      std::vector<A> sums(sums_each), dt(channels);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t n = shared ? 0 : i / pieces; n < (shared ? batch : i / pieces + 1); ++n) {
          const int64_t part = i % pieces, pixel = part * span, count = std::min(span, pixels - pixel);
          A* noise_row = dnoise ? dnoise + (shared ? 0 : n * pixels) + pixel : nullptr;
          std::fill(sums.begin(), sums.end(), A(0));
          piece<T>(b, layout, n, pixel, count, noise_row, sums.data(), dt.data());
          std::copy(sums.begin(), sums.end(), partial.begin() + (n * pieces + part) * sums_each);
        }
    });
    std::vector<double> total(batch * sums_each), bias_total(channels);
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t part = 0; part < pieces; ++part)
        for (int64_t i = 0; i < sums_each; ++i)
          total[n * sums_each + i] += partial[(n * pieces + part) * sums_each + i];
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
