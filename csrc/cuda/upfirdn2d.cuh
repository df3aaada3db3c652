// upfirdn2d: put zeros between pixels, pad, filter, keep every so-many-th pixel. Zeros are never multiplied:
// output o sees the taps k for which o * down + k - pad is a multiple of up.
#pragma once
#include "filter_tile.cuh"
#include "kernels.h"

namespace speak::cuda {

// The filter as a correlation, whichever way it came.
template <class A>
struct Taps {
  const A* taps;
  int height, width;
  bool separable, flip;

  SPEAK_DEVICE A at(int y, int x) const {
    if (!flip) y = height - 1 - y, x = width - 1 - x;
    return separable ? taps[y] * taps[x] : taps[y * width + x];
  }
};

// Planar data, 4 x 4 taps, the same small factors both ways. The tile's origin is shifted back by `shift_y`,
// `shift_x` (less than UP) so that it starts where the zero-stuffed image has a pixel.
template <class T, int UP, int DOWN, int WIDTH, int ROWS>
__global__ void __launch_bounds__(kTileThreads)
    upfirdn2d_tile(const T* __restrict__ x, T* __restrict__ y, Taps<accumulate_t<T>> filter, accumulate_t<T> gain,
                   int64_t planes, int height, int width, int result_height, int result_width, int pad_y, int pad_x,
                   int shift_y, int shift_x, bool aligned) {
  using A = accumulate_t<T>;
  using G = Tile<UP, DOWN, 4, WIDTH, ROWS>;
  SPEAK_SHARED(A, weight, [4][4]);
  SPEAK_SHARED(A, tile, [G::rows_in][G::stride]);
  if (threadIdx.x < 16) weight[threadIdx.x / 4][threadIdx.x % 4] = filter.at(threadIdx.x / 4, threadIdx.x % 4) * gain;
  const int tiles_across = (result_width + shift_x + WIDTH - 1) / WIDTH;
  const int top = int(blockIdx.x / tiles_across) * G::height - shift_y;
  const int left = int(blockIdx.x % tiles_across) * WIDTH - shift_x;
  const int column = threadIdx.x % G::threads_across, row = threadIdx.x / G::threads_across;
  const int first_x = left + column * G::columns, first_y = top + row * ROWS;

  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    __syncthreads();  // the last plane's tile has been read
    load_tile<G>(x + plane * height * width, height, width, (top * DOWN - pad_y) / UP, (left * DOWN - pad_x) / UP,
                 tile);
    __syncthreads();  // the tile is there
    A sum[ROWS][4] = {};
#pragma unroll
    for (int r = 0; r < G::thread_rows_in; ++r) {
      A in[(G::thread_columns_in + 3) / 4 * 4];
      read_row<G>(tile[row * G::row_step + r], column * G::column_step, in);
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        const int ky = r * UP - a * DOWN;
        if (ky < 0 || ky >= 4) continue;
#pragma unroll
        for (int b = 0; b < 4; ++b)
#pragma unroll
          for (int c = 0; c < G::thread_columns_in; ++c) {
            const int kx = c * UP - b * DOWN;
            if (kx >= 0 && kx < 4) sum[a][b] += weight[ky][kx] * in[c];
          }
      }
    }
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      if (first_y + a < 0 || first_y + a >= result_height) continue;
      T* const line = y + (plane * result_height + first_y + a) * result_width;
      if (aligned && first_x + 4 <= result_width) {
        store<4>(sum[a], line + first_x);
      } else {
#pragma unroll
        for (int b = 0; b < 4; ++b)
          if (first_x + b >= 0 && first_x + b < result_width) line[first_x + b] = narrow<T>(sum[a][b]);
      }
    }
  }
}

// The first tap at or after 0 that falls on a pixel, and how that axis goes on.
SPEAK_DEVICE int64_t first_tap(int64_t start, int64_t up) {
  if (start < 0) return -start;  // pixel 0
  const int64_t over = start - divide(start, up) * up;
  return over ? up - over : 0;
}

// Anything: a thread makes one output, or, channels-last, one output for V channels.
template <class T, int V, bool LAST>
__global__ void __launch_bounds__(256, 4)
    upfirdn2d_any(const T* __restrict__ x, T* __restrict__ y, Taps<accumulate_t<T>> filter, accumulate_t<T> gain,
                  int64_t images, int64_t channels, FilterAxis vertical, FilterAxis horizontal) {
  using A = accumulate_t<T>;
  // Planar images and channels are all alike: each is a plane of its own with a single channel.
  const int64_t vectors = LAST ? channels / V : 1, depth = LAST ? channels : 1;
  const int64_t outputs = (LAST ? images : images * channels) * vertical.result * horizontal.result * vectors;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < outputs; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t pixel = divide(i, vectors), c = (i - pixel * vectors) * V;
    const int64_t line = divide(pixel, horizontal.result), ox = pixel - line * horizontal.result;
    const int64_t plane = divide(line, vertical.result), oy = line - plane * vertical.result;
    const int64_t start_y = oy * vertical.down - vertical.pad, start_x = ox * horizontal.down - horizontal.pad;
    const int64_t tap_x = first_tap(start_x, horizontal.up);
    A sum[V] = {};
    for (int64_t ky = first_tap(start_y, vertical.up); ky < filter.height; ky += vertical.up) {
      const int64_t iy = divide(start_y + ky, vertical.up);
      if (iy >= vertical.size) break;
      int64_t ix = divide(start_x + tap_x, horizontal.up);
      const T* from = x + ((plane * vertical.size + iy) * horizontal.size + ix) * depth + c;
      for (int64_t kx = tap_x; kx < filter.width && ix < horizontal.size; kx += horizontal.up, ++ix, from += depth) {
        const A weight = filter.at(static_cast<int>(ky), static_cast<int>(kx));
        A in[V];
        load<V>(from, in);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += weight * in[k];
      }
    }
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] *= gain;
    store<V>(sum, y + pixel * depth + c);
  }
}

}  // namespace speak::cuda
