// The fused end of a StyleGAN2 layer on CPU: blur, demodulation, noise, bias, activation, gain, clamp, and the scaling
// by the next layer's styles, in one pass over the convolution's result.
#include "scalar.h"

namespace speak::cpu {
namespace {

constexpr int64_t kMostTaps = 8;

template <class T> struct Epilogue {
  using A = typename Accumulate<T>::type;
  int64_t channels, pixels;  // of an output image
  const A *demodulation, *noise, *bias, *next_styles;
  int64_t noise_stride;  // 0 where every image gets the same noise
  A slope, gain, limit;
  T *y, *scaled;

  // `count` pixels from `pixel` on of image n, all channels: t and the buffer hold count * channels values.
  void channels_last(const A* t, A* buffer, int64_t n, int64_t pixel, int64_t count) const {
    const A *d = demodulation + n * channels, *s = next_styles ? next_styles + n * channels : nullptr;
    const A* z = noise ? noise + n * noise_stride + pixel : nullptr;
    const int64_t at = (n * pixels + pixel) * channels;
    if (y) each<false>(t, row_for(y + at, buffer), d, s, z, count, y + at);
    if (scaled) each<true>(t, row_for(scaled + at, buffer), d, s, z, count, scaled + at);
  }

  template <bool scale>
  void each(const A* t, A* out, const A* __restrict d, const A* __restrict s, const A* z, int64_t count, T* to) const {
    const A* __restrict b = bias;
    for (int64_t p = 0; p < count; ++p) {
      const A shift = z ? z[p] : A(0);
      const A* __restrict tp = t + p * channels;
      A* __restrict o = out + p * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const A v = activated(tp[c] * d[c] + (b[c] + shift), slope, gain, limit);
        o[c] = scale ? v * s[c] : v;
      }
    }
    put(to, out, count * channels);
  }

  // `count` pixels from `pixel` on of channel c of image n.
  void planar(const A* __restrict t, A* buffer, int64_t n, int64_t c, int64_t pixel, int64_t count) const {
    const A d = demodulation[n * channels + c], b = bias[c];
    const A* __restrict z = noise ? noise + n * noise_stride + pixel : nullptr;
    const int64_t at = (n * channels + c) * pixels + pixel;
    auto write = [&](T* to, A scale) {
      A* __restrict o = row_for(to, buffer);
      if (z)
        for (int64_t p = 0; p < count; ++p) o[p] = activated(t[p] * d + (z[p] + b), slope, gain, limit) * scale;
      else
        for (int64_t p = 0; p < count; ++p) o[p] = activated(t[p] * d + b, slope, gain, limit) * scale;
      put(to, o, count);
    };
    if (y) write(y + at, A(1));
    if (scaled) write(scaled + at, next_styles[n * channels + c]);
  }
};

template <class T> void pointwise(const T* x, const Epilogue<T>& e, int64_t batch, Layout layout) {
  using A = typename Accumulate<T>::type;
  if (layout == Layout::channels_last) {
    const int64_t step = std::max<int64_t>(1, kRow / std::max<int64_t>(1, e.channels));
    const int64_t blocks = (e.pixels + step - 1) / step;
    parallel(batch * blocks, step * e.channels, [&](int64_t begin, int64_t end) {
      std::vector<A> in(step * e.channels), out(step * e.channels);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, pixel = i % blocks * step, count = std::min(step, e.pixels - pixel);
        const A* t = widen(x + (n * e.pixels + pixel) * e.channels, in.data(), count * e.channels);
        e.channels_last(t, out.data(), n, pixel, count);
      }
    });
    return;
  }
  const int64_t blocks = (e.pixels + kRow - 1) / kRow;
  parallel(batch * e.channels * blocks, std::min(e.pixels, kRow), [&](int64_t begin, int64_t end) {
    A in[kRow], out[kRow];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / blocks, pixel = i % blocks * kRow, count = std::min(kRow, e.pixels - pixel);
      const A* t = widen(x + plane * e.pixels + pixel, in, count);
      e.planar(t, out, plane / e.channels, plane % e.channels, pixel, count);
    }
  });
}

// out[i] = sum_k f[k] * in[k][i]
template <class A> void weighted_sum(const A* const* in, const A* f, int64_t taps, A* __restrict out, int64_t count) {
  if (taps == 4) {
    const A *__restrict a = in[0], *__restrict b = in[1], *__restrict c = in[2], *__restrict d = in[3];
    const A fa = f[0], fb = f[1], fc = f[2], fd = f[3];
    for (int64_t i = 0; i < count; ++i) out[i] = (a[i] * fa + b[i] * fb) + (c[i] * fc + d[i] * fd);
    return;
  }
  std::fill(out, out + count, A(0));
  for (int64_t k = 0; k < taps; ++k) {
    const A* __restrict row = in[k];
    const A weight = f[k];
    for (int64_t i = 0; i < count; ++i) out[i] += row[i] * weight;
  }
}

// The filter down the columns into a row buffer, then along the row piece by piece, each piece through the epilogue.
// In channels-last data a step along the row is `channels` elements; planar data is the same with one channel.
template <class T, class A = typename Accumulate<T>::type>
void blurred(const T* x, const A* f, int64_t taps, int64_t pad, const Epilogue<T>& e, int64_t batch, int64_t in_height,
             int64_t in_width, int64_t height, int64_t width, Layout layout) {
  const bool last = layout == Layout::channels_last;
  const int64_t stride = last ? e.channels : 1, planes = last ? batch : batch * e.channels;
  const int64_t step = std::max<int64_t>(1, kRow / std::max<int64_t>(1, stride)), row_size = in_width * stride;
  // The buffer holds a whole padded row: zeros, the image's row, zeros. Negative padding starts inside the row.
  const int64_t before = std::max<int64_t>(pad, 0), start = pad < 0 ? -pad : 0;
  const int64_t buffered = std::max(before + in_width, start + width + taps - 1) * stride;
  parallel(planes * height, width * stride, [&](int64_t begin, int64_t end) {
    std::vector<A> column(buffered), piece(step * stride), out(step * stride), wide[kMostTaps];
    if (!std::is_same_v<T, A>)
      for (int64_t k = 0; k < taps; ++k) wide[k].resize(row_size);
    const std::vector<A> zeros(row_size);
    int64_t held[kMostTaps];  // which row of x each widened buffer holds
    std::fill(held, held + kMostTaps, -1);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / height, row = i % height;
      const A *rows[kMostTaps], *shifted[kMostTaps];
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t from = row + k - pad, id = plane * in_height + from, slot = ((from % taps) + taps) % taps;
        if (from < 0 || from >= in_height) {
          rows[k] = zeros.data();
          continue;
        }
        // successive output rows share all input rows but one: each is widened once
        rows[k] = held[slot] == id && !std::is_same_v<T, A> ? wide[slot].data()
                                                             : widen(x + id * row_size, wide[slot].data(), row_size);
        held[slot] = id;
      }
      weighted_sum<A>(rows, f, taps, column.data() + before * stride, row_size);
      for (int64_t at = 0; at < width; at += step) {
        const int64_t count = std::min(step, width - at);
        for (int64_t k = 0; k < taps; ++k) shifted[k] = column.data() + (start + at + k) * stride;
        weighted_sum<A>(shifted, f, taps, piece.data(), count * stride);
        if (last)
          e.channels_last(piece.data(), out.data(), plane, row * width + at, count);
        else
          e.planar(piece.data(), out.data(), plane / e.channels, plane % e.channels, row * width + at, count);
      }
    }
  });
}

std::tuple<Tensor, Tensor> epilogue(const Tensor& x, std::optional<Tensor> f, int64_t pad0, int64_t pad1,
                                    std::optional<Tensor> demodulation, std::optional<Tensor> noise,
                                    std::optional<Tensor> bias, std::optional<Tensor> next_styles, double slope,
                                    double gain, double clamp, bool plain) {
  check_image(x, "epilogue: x");
  check_activation(slope, gain, clamp);
  const int64_t batch = x.size(0), channels = x.size(1), in_height = x.size(2), in_width = x.size(3);
  int64_t height = in_height, width = in_width, taps = 0;
  if (f.has_value()) {
    taps = f->numel();
    STD_TORCH_CHECK(f->dim() == 1 && taps <= kMostTaps, "epilogue: f must have one dimension of at most ", kMostTaps,
                    " taps");
    height = filtered_size(in_height, 1, 1, pad0, pad1, taps);
    width = filtered_size(in_width, 1, 1, pad0, pad1, taps);
  }
  const auto filter = checked_vector(f, "epilogue: f", x, {taps});
  const auto d = checked_vector(demodulation, "epilogue: demodulation", x, {batch, channels});
  const auto b = checked_vector(bias, "epilogue: bias", x, {channels});
  const auto s = checked_vector(next_styles, "epilogue: next_styles", x, {batch, channels});
  const int64_t noises = noise.has_value() && noise->dim() > 0 && noise->size(0) == batch ? batch : 1;
  const auto z = checked_vector(noise, "epilogue: noise", x, {noises, height, width});
  STD_TORCH_CHECK(plain || next_styles.has_value(), "epilogue: nothing is asked for: plain or next_styles");

  auto [held, layout] = dense(x);
  const auto image = [&](bool wanted) {
    return wanted ? empty_in_layout(x, {batch, channels, height, width}, layout) : nothing(x);
  };
  Tensor y = image(plain), scaled = image(next_styles.has_value());
  if (batch * channels * height * width == 0) return {y, scaled};
  dispatch(x, "epilogue", [&, &held = held, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = typename Accumulate<T>::type;
    const std::vector<A> ones(d ? 0 : batch * channels, A(1)), zeros(b ? 0 : channels, A(0));
    const Epilogue<T> e{channels,
                        height * width,
                        d ? data<A>(*d) : ones.data(),
                        data_or_null<A>(z),
                        b ? data<A>(*b) : zeros.data(),
                        data_or_null<A>(s),
                        noises == 1 ? 0 : height * width,
                        static_cast<A>(slope),
                        static_cast<A>(gain),
                        limit_of<A>(clamp),
                        plain ? mutable_data<T>(y) : nullptr,
                        s ? mutable_data<T>(scaled) : nullptr};
    if (filter)
      blurred<T>(data<T>(held), data<A>(*filter), taps, pad0, e, batch, in_height, in_width, height, width, layout);
    else
      pointwise<T>(data<T>(held), e, batch, layout);
  });
  return {y, scaled};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) { m.impl("epilogue", TORCH_BOX(&epilogue)); }

}  // namespace speak::cpu
