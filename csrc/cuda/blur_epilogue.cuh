// The epilogue of an upsampling layer: a separable blur (a correlation) and everything after it in one pass,
// in float32 (float64) from the load to the store.
#pragma once
#include "activation.cuh"
#include "filter_tile.cuh"
#include "kernels.h"

namespace speak::cuda {

// Filters are held as 4 or 8 taps, the missing ones zero.
template <int TAPS, class A>
SPEAK_DEVICE void load_taps(const A* filter, int taps, A (&to)[TAPS]) {
#pragma unroll
  for (int i = 0; i < TAPS; ++i) to[i] = i < taps ? filter[i] : A(0);
}

// Planar: a tile in shared memory; each thread slides down its four columns, filters each row once and adds it to
// the ROWS outputs it belongs to.
template <class T, int TAPS, int WIDTH, int ROWS>
__global__ void __launch_bounds__(kTileThreads)
    blur_planar(const T* __restrict__ x, T* __restrict__ y, T* __restrict__ scaled,
                const accumulate_t<T>* __restrict__ filter, int taps, int64_t planes, int height, int width,
                int result_height, int result_width, int pad_y, int pad_x, Operands<accumulate_t<T>> operands,
                Activation<accumulate_t<T>> activation, bool aligned) {
  using A = accumulate_t<T>;
  using G = Tile<1, 1, TAPS, WIDTH, ROWS>;
  SPEAK_SHARED(A, tile, [G::rows_in][G::stride]);
  A weight[TAPS];
  load_taps(filter, taps, weight);
  const int tiles_across = (result_width + WIDTH - 1) / WIDTH;
  const int top = int(blockIdx.x / tiles_across) * G::height, left = int(blockIdx.x % tiles_across) * WIDTH;
  const int column = threadIdx.x % G::threads_across, row = threadIdx.x / G::threads_across;
  const int first_x = left + column * 4, first_y = top + row * ROWS;

  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    __syncthreads();  // the last plane's tile has been read
    load_tile<G>(x + plane * height * width, height, width, top - pad_y, left - pad_x, tile);
    __syncthreads();  // the tile is there
    A sum[ROWS][4] = {};
#pragma unroll
    for (int r = 0; r < G::thread_rows_in; ++r) {
      A in[(G::thread_columns_in + 3) / 4 * 4], filtered[4] = {};
      read_row<G>(tile[row * ROWS + r], column * 4, in);
#pragma unroll
      for (int b = 0; b < 4; ++b)
#pragma unroll
        for (int k = 0; k < TAPS; ++k) filtered[b] += weight[k] * in[b + k];
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        if (r < a || r - a >= TAPS) continue;
#pragma unroll
        for (int b = 0; b < 4; ++b) sum[a][b] += weight[r - a] * filtered[b];
      }
    }
    const int64_t n = divide(plane, operands.channels), c = plane - n * operands.channels;
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      if (first_y + a >= result_height) continue;
      const int64_t p = int64_t(first_y + a) * result_width + first_x, at = plane * operands.pixels + p;
      finish<T, 4, false>(sum[a], operands, activation, n, c, p, result_width - first_x, aligned, y ? y + at : nullptr,
                          scaled ? scaled + at : nullptr);
    }
  }
}

constexpr int kBlurLastRows = 4;

// Channels-last: a thread takes V channels of one column and slides down ROWS outputs. Its neighbours read the same
// pixels at the same time, so that the cache, not shared memory, serves the overlap.
template <class T, int V, int TAPS>
__global__ void __launch_bounds__(128, 4)
    blur_last(const T* __restrict__ x, T* __restrict__ y, T* __restrict__ scaled,
              const accumulate_t<T>* __restrict__ filter, int taps, int64_t images, FilterAxis vertical,
              FilterAxis horizontal, Operands<accumulate_t<T>> operands, Activation<accumulate_t<T>> activation) {
  using A = accumulate_t<T>;
  constexpr int rows = kBlurLastRows;
  A weight[TAPS];
  load_taps(filter, taps, weight);
  const int64_t channels = operands.channels, vectors = channels / V;
  const int64_t strips = (vertical.result + rows - 1) / rows;
  const int64_t units = images * strips * horizontal.result * vectors;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < units; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t column = divide(i, vectors), c = (i - column * vectors) * V;
    const int64_t strip = divide(column, horizontal.result), ox = column - strip * horizontal.result;
    const int64_t n = divide(strip, strips), oy = (strip - n * strips) * rows;
    const int64_t left = ox - horizontal.pad;
    A sum[rows][V] = {};
#pragma unroll
    for (int r = 0; r < rows + TAPS - 1; ++r) {
      const int64_t iy = oy - vertical.pad + r;
      if (iy < 0 || iy >= vertical.size) continue;
      const T* const from = x + ((n * vertical.size + iy) * horizontal.size + left) * channels + c;
      A filtered[V] = {};
#pragma unroll
      for (int k = 0; k < TAPS; ++k) {
        if (left + k < 0 || left + k >= horizontal.size) continue;
        A in[V];
        load<V>(from + k * channels, in);
#pragma unroll
        for (int v = 0; v < V; ++v) filtered[v] += weight[k] * in[v];
      }
#pragma unroll
      for (int a = 0; a < rows; ++a) {
        if (r < a || r - a >= TAPS) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) sum[a][v] += weight[r - a] * filtered[v];
      }
    }
#pragma unroll
    for (int a = 0; a < rows; ++a) {
      if (oy + a >= vertical.result) continue;
      const int64_t p = (oy + a) * horizontal.result + ox, at = (n * operands.pixels + p) * channels + c;
      finish<T, V, true>(sum[a], operands, activation, n, c, p, V, true, y ? y + at : nullptr,
                         scaled ? scaled + at : nullptr);
    }
  }
}

}  // namespace speak::cuda
