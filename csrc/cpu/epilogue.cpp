// The fused end of a StyleGAN2 layer on CPU: blur, demodulation, noise, bias, activation, gain, clamp, and the scaling
// by the next layer's styles, in one pass over the convolution's result.
#include "sliding_filter.h"
#include "weighted_sum.h"

namespace speak::cpu {
namespace {

constexpr int64_t kMostTaps = 8;

// What happens to the values of a convolution, for pixels of one image: channels-last, all channels of each.
template <class T, bool scale, class A = Accumulate<T>, class In>
SPEAK_ROWS void vectors(const In* __restrict t, T* __restrict out, const A* __restrict d, const A* __restrict s,
                        const A* noise, const A* __restrict bias, int64_t count, int64_t channels, Bend<A> bend) {
  for (int64_t p = 0; p < count; ++p) {
    const A shift = noise ? noise[p] : A(0);
    for (int64_t c = 0; c < channels; ++c) {
      const A y = bend(load(t[p * channels + c]) * d[c] + (bias[c] + shift));
      store(out[p * channels + c], scale ? y * s[c] : y);
    }
  }
}

// The same for pixels of one channel.
template <class T, bool noisy, class A = Accumulate<T>, class In>
SPEAK_ROWS void plane(const In* __restrict t, T* __restrict out, A d, A s, const A* __restrict noise, A bias,
                      int64_t count, Bend<A> bend) {
  for (int64_t p = 0; p < count; ++p) {
    const A shift = noisy ? noise[p] + bias : bias;
    store(out[p], bend(load(t[p]) * d + shift) * s);
  }
}

template <class T> struct Epilogue {
  using A = Accumulate<T>;
  int64_t channels, pixels;  // of an output image
  const A *demodulation, *noise, *bias, *next_styles;
  int64_t noise_stride;  // 0 where every image gets the same noise
  Bend<A> bend;
  T *y, *scaled;
  bool stream;  // the results go past the caches

  template <class In> void channels_last(const In* t, int64_t n, int64_t pixel, int64_t count) const {
    const A *d = demodulation + n * channels, *s = next_styles ? next_styles + n * channels : nullptr;
    const A* z = noise ? noise + n * noise_stride + pixel : nullptr;
    const int64_t at = (n * pixels + pixel) * channels;
    const int64_t values = count * channels;
    if (y) put_block(y + at, values, stream, [&](T* to) {
      vectors<T, false>(t, to, d, s, z, bias, count, channels, bend);
    });
    if (scaled) put_block(scaled + at, values, stream, [&](T* to) {
      vectors<T, true>(t, to, d, s, z, bias, count, channels, bend);
    });
  }

  template <class In> void planar(const In* t, int64_t n, int64_t c, int64_t pixel, int64_t count) const {
    const A d = demodulation[n * channels + c];
    const A* z = noise ? noise + n * noise_stride + pixel : nullptr;
    const int64_t at = (n * channels + c) * pixels + pixel;
    const auto write = [&](T* result, A scale) {
      put_block(result + at, count, stream, [&](T* to) {
        if (z)
          plane<T, true>(t, to, d, scale, z, bias[c], count, bend);
        else
          plane<T, false>(t, to, d, scale, z, bias[c], count, bend);
      });
    };
    if (y) write(y, A(1));
    if (scaled) write(scaled, next_styles[n * channels + c]);
  }
};

// The epilogue of filtered pixels, sixteen channels at a time. By value: results that are written cannot change it.
template <class T> struct EpilogueOfFiltered {
  using A = Accumulate<T>;
  using V = Lanes<A>;
  const A *demodulations, *noise, *biases, *next_styles;  // of the image and the first result's place
  T *y, *scaled;                                          // at the first result
  int64_t channels, width;                                // of the image
  bool stream;
  Bend<A> bend;
  V demodulation, bias, styles;

  EpilogueOfFiltered(const Epilogue<T>& e, int64_t n, int64_t row, int64_t column, int64_t width, bool stream)
      : demodulations(e.demodulation + n * e.channels), biases(e.bias), channels(e.channels), width(width),
        stream(stream), bend(e.bend) {
    const int64_t pixel = row * width + column, at = (n * e.pixels + pixel) * channels;
    noise = e.noise ? e.noise + n * e.noise_stride + pixel : nullptr;
    next_styles = e.next_styles ? e.next_styles + n * channels : nullptr;
    y = e.y ? e.y + at : nullptr;
    scaled = e.scaled ? e.scaled + at : nullptr;
  }
  void prepare(int64_t c) {
    read_lanes(demodulation, demodulations + c);
    read_lanes(bias, biases + c);
    if (scaled) read_lanes(styles, next_styles + c);
  }
  void take(const V& v, int64_t row, int64_t result, int64_t c) {
    const int64_t pixel = row * width + result, at = pixel * channels + c;
    V values = bias;
    if (noise) values += noise[pixel];
    values += v * demodulation;
    bend.apply(values);
    if (y) put_lanes(y + at, values, stream);
    if (scaled) put_lanes(scaled + at, V(values * styles), stream);
  }
};

template <class T, class A = Accumulate<T>>
void blurred_sliding(const Parts<T>& x, const A* f, int64_t pad, const Epilogue<T>& e, int64_t batch, int64_t height,
                     int64_t width) {
  const auto make_sink = [&](int64_t image, int64_t row, int64_t column, bool stream) {
    return EpilogueOfFiltered<T>(e, image, row, column, width, stream);
  };
  slide_images<T>(x, f, f, batch, pad, pad, height, width, e.channels, make_sink);
}

template <class T> void pointwise(const T* x, const Epilogue<T>& e, int64_t batch, Layout layout) {
  const bool last = layout == Layout::channels_last;
  const int64_t step = last ? std::max<int64_t>(1, kRow / std::max<int64_t>(1, e.channels)) : kRow;
  const int64_t blocks = (e.pixels + step - 1) / step, images = last ? batch : batch * e.channels;
  const int64_t stride = last ? e.channels : 1;
  parallel(images * blocks, std::min(step, e.pixels) * stride, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks, pixel = i % blocks * step, count = std::min(step, e.pixels - pixel);
      const T* t = x + (image * e.pixels + pixel) * stride;
      if (last)
        e.channels_last(t, image, pixel, count);
      else
        e.planar(t, image / e.channels, image % e.channels, pixel, count);
    }
  });
}

// The filter down the columns and then along the row, a piece of a row at a time, each piece through the epilogue
// while it is in the first-level cache. In channels-last data a step along the row is `channels` elements; planar data
// is the same with one channel.
template <class T, class A = Accumulate<T>>
void blurred(const T* x, const A* f, int64_t taps, int64_t pad, const Epilogue<T>& e, int64_t batch, int64_t in_height,
             int64_t in_width, int64_t height, int64_t width, Layout layout) {
  const bool last = layout == Layout::channels_last;
  const int64_t stride = last ? e.channels : 1, planes = last ? batch : batch * e.channels;
  const int64_t values = e.stream ? kRow : 2 * kRow;  // what is streamed is made in blocks of kRow
  const int64_t step = std::min(width, std::max<int64_t>(8, values / std::max<int64_t>(1, stride)));
  parallel(planes * height, width * stride, [&](int64_t begin, int64_t end) {
    std::vector<A> column((step + taps - 1) * stride), piece(step * stride);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / height, row = i % height;
      const T* rows[kMostTaps];
      A weights[kMostTaps];
      int64_t inside = 0;  // taps that fall on rows of the image
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t from = row + k - pad;
        if (from < 0 || from >= in_height) continue;
        rows[inside] = x + (plane * in_height + from) * in_width * stride;
        weights[inside++] = f[k];
      }
      for (int64_t at = 0; at < width; at += step) {
        const int64_t count = std::min(step, width - at), first = at - pad, needed = count + taps - 1;
        // pixels first .. first + needed of the row; zeros where they lie outside of it
        const int64_t low = std::clamp<int64_t>(-first, 0, needed);
        const int64_t high = std::clamp<int64_t>(in_width - first, low, needed);
        std::fill(column.begin(), column.begin() + low * stride, A(0));
        std::fill(column.begin() + high * stride, column.begin() + needed * stride, A(0));
        const T* shifted[kMostTaps];
        for (int64_t k = 0; k < inside; ++k) shifted[k] = rows[k] + (first + low) * stride;
        weighted_sum<T>(shifted, weights, inside, column.data() + low * stride, (high - low) * stride);
        const A* steps[kMostTaps];
        for (int64_t k = 0; k < taps; ++k) steps[k] = column.data() + k * stride;
        weighted_sum<A>(steps, f, taps, piece.data(), count * stride);
        if (last)
          e.channels_last(piece.data(), plane, row * width + at, count);
        else
          e.planar(piece.data(), plane / e.channels, plane % e.channels, row * width + at, count);
      }
    }
  });
}

// What goes with a convolution's result, checked against the shape of y.
struct Operands {
  int64_t batch, channels, height, width, noises;
  std::optional<Tensor> demodulation, bias, next_styles, noise;
  bool plain;

  Operands(const Tensor& x, const int64_t (&shape)[4], const std::optional<Tensor>& d, const std::optional<Tensor>& z,
           const std::optional<Tensor>& b, const std::optional<Tensor>& s, bool plain)
      : batch(shape[0]), channels(shape[1]), height(shape[2]), width(shape[3]),
        noises(z.has_value() && z->dim() > 0 && z->size(0) == shape[0] ? shape[0] : 1),
        demodulation(checked_vector(d, "epilogue: demodulation", x, {shape[0], shape[1]})),
        bias(checked_vector(b, "epilogue: bias", x, {shape[1]})),
        next_styles(checked_vector(s, "epilogue: next_styles", x, {shape[0], shape[1]})),
        noise(checked_vector(z, "epilogue: noise", x, {noises, shape[2], shape[3]})), plain(plain) {
    STD_TORCH_CHECK(plain || s.has_value(), "epilogue: nothing is asked for: plain or next_styles");
  }

  std::tuple<Tensor, Tensor> results(const Tensor& x, Layout layout) const {  // y, scaled
    const auto image = [&](bool wanted) {
      return wanted ? empty_in_layout(x, {batch, channels, height, width}, layout) : nothing(x);
    };
    return {image(plain), image(next_styles.has_value())};
  }

  // `ones` and `zeros` are empty: they are filled where an operand is missing, and outlive what comes back.
  template <class T, class A = Accumulate<T>>
  Epilogue<T> epilogue(std::vector<A>& ones, std::vector<A>& zeros, Bend<A> bend, Tensor& y, Tensor& scaled) const {
    if (!demodulation) ones.assign(batch * channels, A(1));
    if (!bias) zeros.assign(channels, A(0));
    return {channels,
            height * width,
            demodulation ? data<A>(*demodulation) : ones.data(),
            data_or_null<A>(noise),
            bias ? data<A>(*bias) : zeros.data(),
            data_or_null<A>(next_styles),
            noises == 1 ? 0 : height * width,
            bend,
            plain ? mutable_data<T>(y) : nullptr,
            next_styles ? mutable_data<T>(scaled) : nullptr,
            goes_past_caches<T>(batch * channels * height * width)};
  }
};

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
  const Operands with(x, {batch, channels, height, width}, demodulation, noise, bias, next_styles, plain);

  auto [held, layout] = dense(x);
  auto [y, scaled] = with.results(x, layout);
  if (batch * channels * height * width == 0) return {y, scaled};
  dispatch(x, "epilogue", [&, &held = held, &y = y, &scaled = scaled, layout = layout](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    std::vector<A> ones, zeros;
    const Epilogue<T> e = with.epilogue<T>(ones, zeros, bend_for<T>(slope, gain, clamp), y, scaled);
    if (filter && layout == Layout::channels_last && can_slide(taps, taps, channels))
      blurred_sliding<T>({{{data<T>(held)}}, in_height, in_width, channels}, data<A>(*filter), pad0, e, batch, height,
                         width);
    else if (filter)
      blurred<T>(data<T>(held), data<A>(*filter), taps, pad0, e, batch, in_height, in_width, height, width, layout);
    else
      pointwise<T>(data<T>(held), e, batch, layout);
  });
  return {y, scaled};
}

// The same, with a blur of four taps, of an image in parts: its even and its odd rows, each pixel of which is two
// neighbours side by side, the last of each row to spare; or even and odd rows of its even columns and of its odd ones.
std::tuple<Tensor, Tensor> epilogue_of_parts(const Tensor& even, const Tensor& odd, std::optional<Tensor> even_right,
                                             std::optional<Tensor> odd_right, const Tensor& f, int64_t pad0,
                                             int64_t pad1, std::optional<Tensor> demodulation,
                                             std::optional<Tensor> noise, std::optional<Tensor> bias,
                                             std::optional<Tensor> next_styles, double slope, double gain,
                                             double clamp, bool plain) {
  check_image(even, "epilogue_of_parts: even");
  check_activation(slope, gain, clamp);
  const bool columns = even_right.has_value();
  STD_TORCH_CHECK(odd_right.has_value() == columns, "epilogue_of_parts: two parts, or four");
  const int64_t batch = even.size(0), each = even.size(1), channels = columns ? each : each / 2;
  const int64_t half_height = even.size(2) - 1, half_width = even.size(3) - 1;
  const auto held = [&](const Tensor& part, int64_t height, int64_t width) {
    STD_TORCH_CHECK(part.scalar_type() == even.scalar_type() && part.is_cpu() && part.dim() == 4 &&
                        part.size(0) == batch && part.size(1) == each && part.size(2) == height &&
                        part.size(3) == width,
                    "epilogue_of_parts: not parts of one image, which has an odd row and column less than even ones");
    return in_layout(part, Layout::channels_last);
  };
  const Tensor parts[4] = {held(even, half_height + 1, half_width + 1),
                           columns ? held(*even_right, half_height + 1, half_width) : even,
                           held(odd, half_height, half_width + 1),
                           columns ? held(*odd_right, half_height, half_width) : odd};
  STD_TORCH_CHECK((columns || each % 2 == 0) && can_slide(f.numel(), f.numel(), channels),
                  "epilogue_of_parts: channels must be a multiple of ", kLanes, " and taps ", kSlidingTaps, ", not ",
                  channels, " and ", f.numel());
  const int64_t in_height = 2 * half_height + 1, in_width = 2 * half_width + 1;
  const int64_t height = filtered_size(in_height, 1, 1, pad0, pad1, kSlidingTaps);
  const int64_t width = filtered_size(in_width, 1, 1, pad0, pad1, kSlidingTaps);
  const auto filter = checked_vector(f, "epilogue_of_parts: f", even, {kSlidingTaps});
  const Operands with(even, {batch, channels, height, width}, demodulation, noise, bias, next_styles, plain);

  auto [y, scaled] = with.results(even, Layout::channels_last);
  if (batch == 0) return {y, scaled};
  dispatch(even, "epilogue_of_parts", [&, &y = y, &scaled = scaled](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    std::vector<A> ones, zeros;
    const Epilogue<T> e = with.epilogue<T>(ones, zeros, bend_for<T>(slope, gain, clamp), y, scaled);
    const Parts<T> x{{{data<T>(parts[0]), columns ? data<T>(parts[1]) : nullptr},
                      {data<T>(parts[2]), columns ? data<T>(parts[3]) : nullptr}},
                     in_height, in_width, channels, columns ? 0 : 1};
    blurred_sliding<T>(x, data<A>(*filter), pad0, e, batch, height, width);
  });
  return {y, scaled};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) {
  m.impl("epilogue", TORCH_BOX(&epilogue));
  m.impl("epilogue_of_parts", TORCH_BOX(&epilogue_of_parts));
}

}  // namespace speak::cpu
