// Derivatives of the epilogue (and of bias_act) in one pass over the data, with its sums.
// Sums run over channels (for noise) as well as over pixels (for the rest), so that each warp takes a patch of
// channels by pixels, adds up one way in registers and the other way through shuffles, and leaves partial sums
// that two small kernels add up. No atomics: the same order, and so the same bits, on every run.
#pragma once
#include "activation.cuh"

namespace speak::cuda {

// A patch's extent. Planar: `run` pixels (32 lanes * V) of `depth` channels; channels-last: `run` channels
// (`lanes` * V) of `depth` pixels, 32 / lanes of them at a time.
struct Patches {
  int64_t run, depth;
  int64_t along, across;  // how many patches cover an image's rows, and how many its columns
  int lanes;              // that share a row; 32 when planar
};

template <class T>
struct BackwardData {
  using A = accumulate_t<T>;
  const T *dy, *dscaled, *x, *y;  // dy or dscaled may be null; x is read for the demodulation's derivative only
  const A *demodulation, *next_styles;
  T* dx;
  // Partial sums, null where not wanted: three of [N,C,patches] and one of [patches,N,pixels].
  A *by_demodulation, *by_bias, *by_styles, *by_noise;
  int64_t images, channels, pixels;
};

// What a patch's values share: S = 1 channel when planar, S = V channels a lane when channels-last.
template <class A, int S>
struct Channels {
  A demodulation[S], style[S];
  A sums[3][S];  // for the derivatives by demodulation, bias and next_styles

  template <class T>
  SPEAK_DEVICE Channels(const BackwardData<T>& data, int64_t first, int64_t count) {
#pragma unroll
    for (int i = 0; i < S; ++i) {
      demodulation[i] = data.demodulation && i < count ? data.demodulation[first + i] : A(1);
      style[i] = data.next_styles && i < count ? data.next_styles[first + i] : A(0);
      sums[0][i] = sums[1][i] = sums[2][i] = A(0);
    }
  }
};

// V neighbours at offset `at`: writes dx, gives dL/dt and adds their share to the channels' sums.
template <class T, int V, int S>
SPEAK_DEVICE void differentiate(const BackwardData<T>& data, const Activation<accumulate_t<T>>& activation, int64_t at,
                                int64_t count, Channels<accumulate_t<T>, S>& channels, accumulate_t<T> (&dt)[V]) {
  using A = accumulate_t<T>;
  A g[V], y[V], other[V];
  load_some<V>(data.y + at, count, y);
#pragma unroll
  for (int i = 0; i < V; ++i) g[i] = A(0);
  if (data.dy) load_some<V>(data.dy + at, count, g);
  if (data.dscaled) {
    load_some<V>(data.dscaled + at, count, other);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      g[i] += other[i] * channels.style[i % S];
      channels.sums[2][i % S] += other[i] * y[i];
    }
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    dt[i] = g[i] * activation.derivative_at(y[i]);
    channels.sums[1][i % S] += dt[i];
    g[i] = dt[i] * channels.demodulation[i % S];
  }
  if (data.by_demodulation) {
    load_some<V>(data.x + at, count, other);
#pragma unroll
    for (int i = 0; i < V; ++i) channels.sums[0][i % S] += dt[i] * other[i];
  }
  store_some<V>(g, count, true, data.dx + at);  // last: for all that the compiler knows, it changes what is yet to load
}

constexpr int kBackwardWarps = 4;  // a block

template <class T, int V>
__global__ void __launch_bounds__(32 * kBackwardWarps)
    backward_planar(BackwardData<T> data, Patches patches, Activation<accumulate_t<T>> numbers) {
  using A = accumulate_t<T>;
  const auto activation = numbers.template rounded_to<T>();
  const int lane = threadIdx.x % 32;
  const int64_t units = patches.along * patches.across * data.images;
  for (int64_t unit = int64_t(blockIdx.x) * kBackwardWarps + threadIdx.x / 32; unit < units;
       unit += int64_t(gridDim.x) * kBackwardWarps) {
    const int64_t rest = divide(unit, patches.along), run = unit - rest * patches.along;
    const int64_t n = divide(rest, patches.across), group = rest - n * patches.across;
    const int64_t p = run * patches.run + lane * V, count = data.pixels - p;
    const int64_t last = min((group + 1) * patches.depth, data.channels);
    A over_channels[V] = {};
    for (int64_t c = group * patches.depth; c < last; ++c) {
      const int64_t row = n * data.channels + c;
      Channels<A, 1> channel(data, row, 1);
      if (count > 0) {
        A dt[V];
        differentiate<T, V>(data, activation, row * data.pixels + p, count, channel, dt);
#pragma unroll
        for (int i = 0; i < V; ++i) over_channels[i] += dt[i];
      }
      A* const partial[3] = {data.by_demodulation, data.by_bias, data.by_styles};
#pragma unroll
      for (int k = 0; k < 3; ++k) {
        if (!partial[k]) continue;
        const A sum = sum_over_lanes(channel.sums[k][0]);
        if (lane == 0) partial[k][row * patches.along + run] = sum;
      }
    }
    if (data.by_noise)
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (i < count) data.by_noise[(group * data.images + n) * data.pixels + p + i] = over_channels[i];
  }
}

template <class T, int V>
__global__ void __launch_bounds__(32 * kBackwardWarps)
    backward_last(BackwardData<T> data, Patches patches, Activation<accumulate_t<T>> numbers) {
  using A = accumulate_t<T>;
  const auto activation = numbers.template rounded_to<T>();
  const int lane = threadIdx.x % 32, lanes = patches.lanes, place = lane % lanes;
  const int64_t units = patches.along * patches.across * data.images;
  for (int64_t unit = int64_t(blockIdx.x) * kBackwardWarps + threadIdx.x / 32; unit < units;
       unit += int64_t(gridDim.x) * kBackwardWarps) {
    const int64_t rest = divide(unit, patches.along), run = unit - rest * patches.along;
    const int64_t n = divide(rest, patches.across), group = rest - n * patches.across;
    const int64_t c = run * patches.run + place * V, count = data.channels - c;
    const int64_t first = group * patches.depth, last = min(first + patches.depth, data.pixels);
    Channels<A, V> channels(data, n * data.channels + c, count);
    for (int64_t step = first; step < last; step += 32 / lanes) {  // the same count for every lane: they shuffle
      const int64_t p = step + lane / lanes;
      A over_channels = 0;
      if (p < last && count > 0) {
        A dt[V];
        differentiate<T, V>(data, activation, (n * data.pixels + p) * data.channels + c, count, channels, dt);
#pragma unroll
        for (int i = 0; i < V; ++i) over_channels += dt[i];
      }
      if (!data.by_noise) continue;
      over_channels = sum_over_lanes(over_channels, lanes);
      if (place == 0 && p < last) data.by_noise[(run * data.images + n) * data.pixels + p] = over_channels;
    }
    A* const partial[3] = {data.by_demodulation, data.by_bias, data.by_styles};
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      if (!partial[k]) continue;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        A sum = channels.sums[k][i];
        for (int distance = 16; distance >= lanes; distance /= 2)
          sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (lane < lanes && i < count)
          partial[k][(n * data.channels + c + i) * patches.across + group] = sum;
      }
    }
  }
}

// Adds up [N,C,patches]: a warp for each channel, over patches and, for the bias, over images.
template <class A>
__global__ void __launch_bounds__(32 * kBackwardWarps)
    finish_channel_sums(const A* by_demodulation, const A* by_bias, const A* by_styles, A* ddemodulation, A* dbias,
                        A* dnext_styles, int64_t images, int64_t channels, int64_t patches) {
  const int lane = threadIdx.x % 32;
  for (int64_t c = int64_t(blockIdx.x) * kBackwardWarps + threadIdx.x / 32; c < channels;
       c += int64_t(gridDim.x) * kBackwardWarps) {
    A bias = 0;
    for (int64_t n = 0; n < images; ++n) {
      const int64_t row = n * channels + c;
      A demodulation = 0, styles = 0;
      for (int64_t i = row * patches + lane; i < (row + 1) * patches; i += 32) {
        if (ddemodulation) demodulation += by_demodulation[i];
        if (dbias) bias += by_bias[i];
        if (dnext_styles) styles += by_styles[i];
      }
      demodulation = sum_over_lanes(demodulation);
      styles = sum_over_lanes(styles);
      if (lane == 0 && ddemodulation) ddemodulation[row] = demodulation;
      if (lane == 0 && dnext_styles) dnext_styles[row] = styles;
    }
    bias = sum_over_lanes(bias);
    if (lane == 0 && dbias) dbias[c] = bias;
  }
}

// Adds up [patches,N,pixels] over patches, and over images where they share their noise.
template <class A>
__global__ void __launch_bounds__(256)
    finish_noise_sums(const A* __restrict__ by_noise, A* __restrict__ dnoise, int64_t results, int64_t addends) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < results; i += int64_t(gridDim.x) * blockDim.x) {
    A sum = 0;
    for (int64_t k = 0; k < addends; ++k) sum += by_noise[k * results + i];
    dnoise[i] = sum;
  }
}

}  // namespace speak::cuda
