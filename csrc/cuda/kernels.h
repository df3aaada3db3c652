// The CUDA half's launch functions: plain pointers and sizes in, an error message (or null) out.
// Neither torch nor the CUDA headers are needed to call them.
//
// Which shape takes which path (planar: NCHW; last: channels-last, NHWC; V: elements in 128 bits):
//
//   bias_act, and the epilogue without f
//     data on 128-bit boundaries             epilogue_pointwise, V wide; what straddles rows, and the tail, one by one
//     else                                   epilogue_pointwise, 1 wide
//   epilogue with f
//     planar, up to 4 taps                   blur_planar<4>: tiles of 128 columns, of 32 where W' <= 64
//     planar, up to 8 taps                   blur_planar<8>: tiles of 32 columns
//     last, up to 4 or 8 taps                blur_last<4>, <8>: V channels a thread where C % V == 0, else 1
//   bias_act_backward, epilogue_backward
//     rows (H*W planar, C last) % V == 0     backward_planar, backward_last, V wide
//     else                                   the same, 1 wide
//   upfirdn2d
//     planar, 4x4 or 4 taps, on both axes    upfirdn2d_tile: tiles of 128, 128 and 64 columns, of 32, 32 and 16 where
//     (up, down) = (1,1), (2,1), (1,2)       W' <= 64, 64 and 32
//     other planar                           upfirdn2d_any, one output a thread
//     last                                   upfirdn2d_any, V channels a thread where C % V == 0, else 1
//   modulated_conv3x3
//     float16, C_in and C_out multiples of   modulated_conv3x3_kernel, a wmma implicit matrix product: a block makes 64
//     8, at most 128; any H and W; planar    channels (32, 16 where C_out is no more) of 16x16 pixels, and less of both
//     and last                               where that would be under 128 blocks
//     else (wider, strided, transposed,      none: the vendor's convolution and then the epilogue, which Python chooses
//     other dtypes, other kernels)
//
// All but modulated_conv3x3 take float16, bfloat16, float32 and float64. Data may have more than 2^31 elements.
#pragma once
#ifndef __CUDACC_RTC__  // NVRTC has no standard headers; scalar.cuh stands in
#include <cstdint>
#endif

namespace speak::cuda {

enum class Element { float16, bfloat16, float32, float64 };

// [images, channels, pixels] in memory, or [images, pixels, channels] where `last`.
struct Rows {
  int64_t images, channels, pixels;
  bool last;
};

// Pointers to float32, or float64 beside float64 data; null where absent.
struct EpilogueOperands {
  const void *demodulation, *noise, *bias, *next_styles;
  bool noise_shared;  // one [H, W] for all images
};

struct ActivationNumbers {
  double slope, gain, clamp;
};

struct Filter {
  const void* taps;  // [height, width], or [height] for both axes where `separable`
  int height, width;
  bool separable, flip;
};

struct FilterAxis {
  int64_t size, result;  // elements in and out
  int64_t up, down, pad;
};

const char* upfirdn2d(Element element, const void* x, void* y, int64_t images, int64_t channels, bool last,
                      FilterAxis vertical, FilterAxis horizontal, Filter filter, double gain, void* stream);

// bias_act too. y and scaled may be null.
const char* epilogue(Element element, const void* x, void* y, void* scaled, Rows rows, EpilogueOperands operands,
                     ActivationNumbers activation, void* stream);

// filter: `taps` numbers for both axes, applied as a correlation.
constexpr int kMostBlurTaps = 8;
const char* blur_epilogue(Element element, const void* x, void* y, void* scaled, int64_t images, int64_t channels,
                          bool last, FilterAxis vertical, FilterAxis horizontal, const void* filter, int taps,
                          EpilogueOperands operands, ActivationNumbers activation, void* stream);

// What to compute; every output but dx may be null.
struct BackwardOutputs {
  void* dx;
  void *ddemodulation, *dnoise, *dbias, *dnext_styles;  // [N,C], [1 or N,pixels], [C], [N,C]
  bool noise_shared;
};
// Numbers (float32, or float64) that epilogue_backward needs as workspace. aligned: all its data are on 128-bit
// boundaries.
int64_t backward_workspace(Element element, Rows rows, bool aligned, const BackwardOutputs& outputs);
// bias_act_backward too. dy or dscaled, demodulation and next_styles may be null, x where ddemodulation is.
const char* epilogue_backward(Element element, const void* dy, const void* dscaled, const void* x, const void* y,
                              const void* demodulation, const void* next_styles, BackwardOutputs outputs, Rows rows,
                              ActivationNumbers activation, bool aligned, void* workspace, void* stream);

// float16; weight [9, channels_out, channels_in]; styles [images, channels_in] float32.
constexpr int64_t kMostNarrowChannels = 128;
const char* modulated_conv3x3(const void* x, const void* weight, const float* styles, void* y, void* scaled,
                              int64_t images, int64_t channels_in, int64_t channels_out, int64_t height,
                              int64_t width, bool last, EpilogueOperands operands, ActivationNumbers activation,
                              void* stream);

}  // namespace speak::cuda
