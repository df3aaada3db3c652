// A whole stride-1 StyleGAN2 layer for narrow float16 data: style scaling, 3x3 convolution and epilogue in one kernel,
// so that activations are read once and written once.
//
// The convolution is an implicit matrix product on tensor cores, through wmma, which sm_70 to sm_90 all have:
// M output channels by 16 x 4R pixels, summed over 9 taps and, 16 at a time, input channels. Each of the four warps
// makes all M channels of R rows of 16 pixels; a row's 16 pixels, shifted by the tap, are 16 successive rows of the
// shared tile, so that nothing is unfolded.
#pragma once
#include <mma.h>

#include "activation.cuh"

namespace speak::cuda {

constexpr int kConvWarps = 4, kConvThreads = 32 * kConvWarps;
constexpr int kConvDepth = 16;   // input channels at a time; 16 halves are the 256 bits that wmma rows start on
constexpr int kConvColumns = 16, kHaloColumns = kConvColumns + 2;

// The input patch with its border, scaled by the styles, zero outside the image: [pixel][channel].
template <int HALO_ROWS, bool LAST>
SPEAK_DEVICE void load_scaled(const __half* __restrict__ image, const float* __restrict__ styles, int first_channel,
                              int channels, int height, int width, int y0, int x0,
                              __half (&patch)[HALO_ROWS * kHaloColumns][kConvDepth]) {
  constexpr int pixels = HALO_ROWS * kHaloColumns;
  const auto inside = [&](int pixel, int64_t& at) {
    const int y = y0 + pixel / kHaloColumns, x = x0 + pixel % kHaloColumns;
    at = int64_t(y) * width + x;
    return y >= 0 && y < height && x >= 0 && x < width;
  };
  int64_t at;
  if constexpr (LAST) {
    const int half = threadIdx.x % 2 * 8, c = first_channel + half;  // a thread stays with its eight channels
    float style[8] = {};
    if (c < channels)
#pragma unroll
      for (int k = 0; k < 8; ++k) style[k] = styles[c + k];
#pragma unroll 2
    for (int pixel = threadIdx.x / 2; pixel < pixels; pixel += kConvThreads / 2) {
      float value[8] = {};
      if (inside(pixel, at) && c < channels) load<8>(image + at * channels + c, value);
#pragma unroll
      for (int k = 0; k < 8; ++k) value[k] *= style[k];
      store_shared<8>(value, &patch[pixel][half]);
    }
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < pixels * (kConvDepth / 2); i += kConvThreads) {
      const int pixel = i % pixels, pair = i / pixels * 2, c = first_channel + pair;
      float value[2] = {};
      if (inside(pixel, at) && c < channels) {  // channels are even: a pair is whole
        const __half* const from = image + int64_t(c) * height * width + at;
        value[0] = widen(from[0]) * styles[c];
        value[1] = widen(from[int64_t(height) * width]) * styles[c + 1];
      }
      store_shared<2>(value, &patch[pixel][pair]);
    }
  }
}

// All nine taps of M output by 16 input channels, zero where there are fewer.
template <int M>
SPEAK_DEVICE void load_weight(const __half* __restrict__ weight, int first_out, int channels_out, int first_in,
                              int channels_in, __half (&to)[9][M][kConvDepth]) {
#pragma unroll 3
  for (int i = threadIdx.x; i < 9 * M * 2; i += kConvThreads) {
    const int tap = i / (2 * M), m = i / 2 % M, half = i % 2 * 8;
    float value[8] = {};
    if (first_out + m < channels_out && first_in + half < channels_in)
      load<8>(weight + (int64_t(tap) * channels_out + first_out + m) * channels_in + first_in + half, value);
    store_shared<8>(value, &to[tap][m][half]);
  }
}

template <int M, int R, bool LAST>
__global__ void __launch_bounds__(kConvThreads, 2)
    modulated_conv3x3_kernel(const __half* __restrict__ x, const __half* __restrict__ weight,
                             const float* __restrict__ styles, __half* __restrict__ y, __half* __restrict__ scaled,
                             int images, int channels_in, int channels_out, int height, int width,
                             Operands<float> operands, Activation<float> activation, bool aligned) {
  namespace wmma = nvcuda::wmma;
  constexpr int rows = kConvWarps * R, blocks_m = M / 16;
  SPEAK_SHARED(__half, patch, [(rows + 2) * kHaloColumns][kConvDepth]);
  SPEAK_SHARED(__half, taps, [9][M][kConvDepth]);
  static_assert(sizeof(float) * kConvWarps * 16 * M <= sizeof(__half) * 9 * M * kConvDepth, "results fit over taps");
  const int tiles_across = (width + kConvColumns - 1) / kConvColumns;
  const int top = int(blockIdx.x / tiles_across) * rows, left = int(blockIdx.x % tiles_across) * kConvColumns;
  const int first_out = blockIdx.y * M, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* const results = reinterpret_cast<float*>(&taps[0][0][0]) + warp * 16 * M;  // a row of pixels of each warp's

  for (int n = blockIdx.z; n < images; n += gridDim.z) {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[blocks_m][R];
#pragma unroll
    for (int i = 0; i < blocks_m; ++i)
#pragma unroll
      for (int j = 0; j < R; ++j) wmma::fill_fragment(sum[i][j], 0.0f);

    for (int c = 0; c < channels_in; c += kConvDepth) {
      __syncthreads();  // what the last round put into shared memory has been read
      load_scaled<rows + 2, LAST>(x + int64_t(n) * channels_in * height * width, styles + int64_t(n) * channels_in, c,
                                  channels_in, height, width, top - 1, left - 1, patch);
      load_weight<M>(weight, first_out, channels_out, c, channels_in, taps);
      __syncthreads();  // patch and taps are there
#pragma unroll 1
      for (int tap = 0; tap < 9; ++tap) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a[blocks_m];
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> b;
#pragma unroll
        for (int i = 0; i < blocks_m; ++i) wmma::load_matrix_sync(a[i], &taps[tap][i * 16][0], kConvDepth);
#pragma unroll
        for (int j = 0; j < R; ++j) {
          const int pixel = (warp * R + j + tap / 3) * kHaloColumns + tap % 3;
          wmma::load_matrix_sync(b, &patch[pixel][0], kConvDepth);
#pragma unroll
          for (int i = 0; i < blocks_m; ++i) wmma::mma_sync(sum[i][j], a[i], b, sum[i][j]);
        }
      }
    }

    __syncthreads();  // every warp is done with the taps, where results now go
    // What a fragment's elements stand for is known only once it is in memory. Channels-last [16 pixels][M channels],
    // planar [M][16]: either way eight neighbours make a 128-bit store.
#pragma unroll
    for (int j = 0; j < R; ++j) {
      const int oy = top + warp * R + j;
#pragma unroll
      for (int i = 0; i < blocks_m; ++i)
        wmma::store_matrix_sync(results + i * (LAST ? 16 : 256), sum[i][j], LAST ? M : 16,
                                LAST ? wmma::mem_col_major : wmma::mem_row_major);
      __syncwarp();  // the row is there
#pragma unroll 1
      for (int i = lane; i < 2 * M; i += 32) {
        const int pixel = LAST ? i / (M / 8) : i % 2 * 8, m = LAST ? i % (M / 8) * 8 : i / 2;
        const int ox = left + pixel, c = first_out + m;
        if (oy >= height || ox >= width || c >= channels_out) continue;
        float value[8];
        load<8>(results + i * 8, value);
        const int64_t p = int64_t(oy) * width + ox;
        const int64_t at = LAST ? (n * operands.pixels + p) * channels_out + c
                                : (int64_t(n) * channels_out + c) * operands.pixels + p;
        finish<__half, 8, LAST>(value, operands, activation, n, c, p, LAST ? 8 : width - ox, aligned,
                                y ? y + at : nullptr, scaled ? scaled + at : nullptr);
      }
      __syncwarp();  // the row has been read
    }
  }
}

}  // namespace speak::cuda
