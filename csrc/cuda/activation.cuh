// What a StyleGAN2 layer does to a value after its convolution, and that function's derivative.
#pragma once
#include "scalar.cuh"

namespace speak::cuda {

// y = limit((t > 0 ? t : slope * t) * gain); slope 1 is linear, 0 relu; clamp < 0: no limit.
template <class A>
struct Activation {
  A slope, gain, clamp;

  SPEAK_DEVICE A operator()(A t) const {
    t = (t > A(0) ? t : slope == A(0) && t < A(0) ? A(0) : slope * t) * gain;  // relu of -infinity is 0
    if (clamp >= A(0)) t = t < -clamp ? -clamp : (t > clamp ? clamp : t);  // a NaN stays a NaN
    return t;
  }

  // dy/dt, told from y: the sign of t is the sign of y.
  SPEAK_DEVICE A derivative_at(A y) const {
    const A slope_here = gain * (y > A(0) ? A(1) : slope);
    return clamp < A(0) || (y < clamp && -y < clamp) ? slope_here : A(0);
  }

  // With the limit as T can hold it: where y was limited and rounded to T, |y| < clamp must still be false.
  template <class T>
  SPEAK_DEVICE Activation rounded_to() const {
    return {slope, gain, clamp < A(0) ? clamp : widen(narrow<T>(clamp))};
  }
};

// The small operands of the epilogue; null pointers stand for 1, 0, 0 and 1.
template <class A>
struct Operands {
  const A* demodulation;  // [N,C]
  const A* noise;         // [N or 1, H, W]
  const A* bias;          // [C]
  const A* next_styles;   // [N,C]
  int64_t noise_stride;   // elements from one image's noise to the next one's; 0 where they share it
  int64_t channels, pixels;
  bool aligned;  // runs of operands beside a vector of data start on 128-bit boundaries

  // V numbers side by side, or the first `count` where there are fewer.
  template <int V>
  SPEAK_DEVICE void load_run(const A* from, int64_t count, A (&to)[V]) const {
    constexpr int group = V < kVector<A> ? V : kVector<A>;
    if (aligned && count >= V) {
#pragma unroll
      for (int i = 0; i < V; i += group) {
        A part[group];
        load<group>(from + i, part);
#pragma unroll
        for (int k = 0; k < group; ++k) to[i + k] = part[k];
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = i < count ? from[i] : A(0);
    }
  }

  // t = x * scale + shift for V values from image n, channel c, pixel p on: V pixels of one channel,
  // or, channels-last, V channels of one pixel.
  template <int V, bool LAST>
  SPEAK_DEVICE void scale_and_shift(int64_t n, int64_t c, int64_t p, int64_t count, A (&scale)[V],
                                    A (&shift)[V]) const {
    if constexpr (LAST) {
      fill(scale, A(1));
      fill(shift, A(0));
      if (demodulation) load_run<V>(demodulation + n * channels + c, count, scale);
      if (bias) load_run<V>(bias + c, count, shift);
      if (noise) add(shift, noise[n * noise_stride + p]);
    } else {
      fill(scale, demodulation ? demodulation[n * channels + c] : A(1));
      fill(shift, A(0));
      if (noise) load_run<V>(noise + n * noise_stride + p, count, shift);
      if (bias) add(shift, bias[c]);
    }
  }

  template <int V, bool LAST>
  SPEAK_DEVICE void styles(int64_t n, int64_t c, int64_t count, A (&style)[V]) const {
    if constexpr (LAST)
      load_run<V>(next_styles + n * channels + c, count, style);
    else
      fill(style, next_styles[n * channels + c]);
  }

 private:
  template <int V>
  SPEAK_DEVICE static void fill(A (&values)[V], A value) {
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] = value;
  }
  template <int V>
  SPEAK_DEVICE static void add(A (&values)[V], A value) {
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] += value;
  }
};

// The whole epilogue of V neighbouring values, of which the first `count` exist, and its result stored, in one access
// where `wide` says that its place is on such a boundary. y and scaled may be null.
template <class T, int V, bool LAST>
SPEAK_DEVICE void finish(const accumulate_t<T> (&x)[V], const Operands<accumulate_t<T>>& operands,
                         const Activation<accumulate_t<T>>& activation, int64_t n, int64_t c, int64_t p,
                         int64_t count, bool wide, T* y, T* scaled) {
  using A = accumulate_t<T>;
  A scale[V], value[V];
  operands.template scale_and_shift<V, LAST>(n, c, p, count, scale, value);
#pragma unroll
  for (int i = 0; i < V; ++i) value[i] = activation(x[i] * scale[i] + value[i]);
  if (y) store_some<V>(value, count, wide, y);
  if (scaled) {
    operands.template styles<V, LAST>(n, c, count, scale);
#pragma unroll
    for (int i = 0; i < V; ++i) value[i] *= scale[i];
    store_some<V>(value, count, wide, scaled);
  }
}

}  // namespace speak::cuda
