// The end of a StyleGAN2 layer on CPU where y is only wanted for ToRGB: what `epilogue` does without a blur, and
// ToRGB's product while y is in registers, so that y is never written.
#include "sliding_filter.h"

namespace speak::cpu {
namespace {

constexpr int64_t kColours = 3;
constexpr int64_t kPixels = 256;  // in a task's piece

template <class A> inline A sum_of(const Lanes<A>& v) {  // by halves: fewer steps than one after the other
  A a[kLanes];
  std::memcpy(a, &v, sizeof a);
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t k = 0; k < half; ++k) a[k] += a[k + half];
  return a[0];
}

template <class T> struct Pixels {
  using A = Accumulate<T>;
  const T* x;  // [count, channels]
  const A *demodulation, *bias, *next_styles, *rgb;  // [channels], the last [3, channels]; next_styles may be null
  const A* noise;  // [count] or null
  T* scaled;  // [count, channels], with next_styles
  A* picture;  // [3] planes that are `plane` apart
  int64_t plane;
};

template <class T, bool scale, class A = Accumulate<T>>
SPEAK_ROWS void rgb_row(const Pixels<T> at, int64_t count, int64_t channels, Bend<A> bend) {
  using V = Lanes<A>;
  for (int64_t p = 0; p < count; ++p) {
    const A shift = at.noise ? at.noise[p] : A(0);
    V red = {}, green = {}, blue = {};
    for (int64_t c = 0; c < channels; c += kLanes) {
      V y, v;
      read_lanes(y, at.x + p * channels + c);
      read_lanes(v, at.demodulation + c);
      y *= v;
      read_lanes(v, at.bias + c);
      y += v + shift;
      bend.apply(y);
      read_lanes(v, at.rgb + c);
      red += y * v;
      read_lanes(v, at.rgb + channels + c);
      green += y * v;
      read_lanes(v, at.rgb + 2 * channels + c);
      blue += y * v;
      if (scale) {
        read_lanes(v, at.next_styles + c);
        write_lanes(at.scaled + p * channels + c, y * v);
      }
    }
    at.picture[p] = sum_of<A>(red);
    at.picture[at.plane + p] = sum_of<A>(green);
    at.picture[2 * at.plane + p] = sum_of<A>(blue);
  }
}

std::tuple<Tensor, Tensor> epilogue_rgb(const Tensor& x, std::optional<Tensor> demodulation,
                                        std::optional<Tensor> noise, std::optional<Tensor> bias,
                                        std::optional<Tensor> next_styles, const Tensor& rgb, double slope, double gain,
                                        double clamp) {
  check_image(x, "epilogue_rgb: x");
  check_activation(slope, gain, clamp);
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3), size = height * width;
  STD_TORCH_CHECK(channels % kLanes == 0, "epilogue_rgb: channels must be a multiple of ", kLanes, ", not ", channels);
  const auto d = checked_vector(demodulation, "epilogue_rgb: demodulation", x, {batch, channels});
  const auto b = checked_vector(bias, "epilogue_rgb: bias", x, {channels});
  const auto s = checked_vector(next_styles, "epilogue_rgb: next_styles", x, {batch, channels});
  const auto w = checked_vector(rgb, "epilogue_rgb: rgb", x, {batch, kColours, channels});
  const int64_t noises = noise.has_value() && noise->dim() > 0 && noise->size(0) == batch ? batch : 1;
  const auto z = checked_vector(noise, "epilogue_rgb: noise", x, {noises, height, width});

  const Tensor held = in_layout(x, Layout::channels_last);
  Tensor picture = empty_vector(x, {batch, kColours, height, width});
  Tensor scaled = s ? empty_in_layout(x, {batch, channels, height, width}, Layout::channels_last) : nothing(x);
  if (batch * channels * size == 0) return {torch::stable::zero_(picture), scaled};
  dispatch(x, "epilogue_rgb", [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulate<T>;
    const std::vector<A> ones(channels, A(1)), zeros(channels, A(0));
    const Bend<A> bend = bend_for<T>(slope, gain, clamp);
    const int64_t pieces = (size + kPixels - 1) / kPixels;
    parallel(batch * pieces, std::min(kPixels, size) * channels, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, pixel = i % pieces * kPixels, from = (n * size + pixel) * channels;
        const Pixels<T> at{data<T>(held) + from,
                           d ? data<A>(*d) + n * channels : ones.data(),
                           b ? data<A>(*b) : zeros.data(),
                           s ? data<A>(*s) + n * channels : nullptr,
                           data<A>(*w) + n * kColours * channels,
                           z ? data<A>(*z) + (noises == 1 ? 0 : n * size) + pixel : nullptr,
                           s ? mutable_data<T>(scaled) + from : nullptr,
                           mutable_data<A>(picture) + n * kColours * size + pixel,
                           size};
        const int64_t count = std::min(kPixels, size - pixel);
        if (s)
          rgb_row<T, true>(at, count, channels, bend);
        else
          rgb_row<T, false>(at, count, channels, bend);
      }
    });
  });
  return {picture, scaled};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, CPU, m) { m.impl("epilogue_rgb", TORCH_BOX(&epilogue_rgb)); }

}  // namespace speak::cpu
