// The epilogue without a blur, and bias_act, which is its simplest case: one pass, each value read and written once.
#pragma once
#include "activation.cuh"

namespace speak::cuda {

// A thread takes the V values at a 128-bit boundary. They mostly lie in one row (a channel's plane, or, channels-last,
// a pixel's channels) and share their operands' places; those that straddle rows, and the tail, go one by one.
template <class T, int V, bool LAST>
__global__ void __launch_bounds__(256)
    epilogue_pointwise(const T* __restrict__ x, T* __restrict__ y, T* __restrict__ scaled, int64_t count,
                       Operands<accumulate_t<T>> operands, Activation<accumulate_t<T>> activation) {
  const int64_t along = LAST ? operands.channels : operands.pixels;
  const int64_t across = LAST ? operands.pixels : operands.channels;
  const int64_t step = int64_t(gridDim.x) * blockDim.x * V;
  for (int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; first < count; first += step) {
    const int64_t row = divide(first, along), place = first - row * along;
    const int64_t n = divide(row, across), other = row - n * across;
    if (place + V <= along) {
      accumulate_t<T> value[V];
      load<V>(x + first, value);
      finish<T, V, LAST>(value, operands, activation, n, LAST ? place : other, LAST ? other : place, V, true,
                         y ? y + first : nullptr, scaled ? scaled + first : nullptr);
      continue;
    }
    for (int64_t i = first; i < first + V && i < count; ++i) {
      const int64_t row_i = divide(i, along), place_i = i - row_i * along;
      const int64_t n_i = divide(row_i, across), other_i = row_i - n_i * across;
      const accumulate_t<T> value[1] = {widen(x[i])};
      finish<T, 1, LAST>(value, operands, activation, n_i, LAST ? place_i : other_i, LAST ? other_i : place_i, 1, true,
                         y ? y + i : nullptr, scaled ? scaled + i : nullptr);
    }
  }
}

}  // namespace speak::cuda
