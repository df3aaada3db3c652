// Launches the fused narrow convolution.
#include "launch.cuh"
#include "modulated_conv3x3.cuh"

namespace speak::cuda {
namespace {

struct Call {
  const __half *x, *weight;
  const float* styles;
  __half *y, *scaled;
  int images, channels_in, channels_out, height, width;
  bool last;
  Operands<float> operands;
  Activation<float> activation;
  void* stream;

  int64_t blocks_of(int m, int r) const {
    return groups_of(width, kConvColumns) * groups_of(height, kConvWarps * r) * groups_of(channels_out, m) * images;
  }

  template <int M, int R, bool LAST>
  const char* run() const {
    const int64_t tiles = groups_of(width, kConvColumns) * groups_of(height, kConvWarps * R);
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(groups_of(channels_out, M)),
                    blocks(images, kMostPlanes));
    Operands<float> by_place = operands;
    // Planar threads start at columns of 8: only if rows do too are their 128 bits on a boundary.
    const bool aligned = on_boundary(y) && on_boundary(scaled) && (LAST || width % 8 == 0);
    by_place.aligned = operands.aligned && (LAST || width % 8 == 0);
    return SPEAK_LAUNCH((&modulated_conv3x3_kernel<M, R, LAST>), grid, kConvThreads, stream, x, weight, styles, y,
                        scaled, images, channels_in, channels_out, height, width, by_place, activation, aligned);
  }

  template <int M, int R>
  const char* run() const {
    return last ? run<M, R, true>() : run<M, R, false>();
  }

  // Large blocks read the least; small images are cut finer, so that every multiprocessor has something to do.
  const char* fastest() const {
    constexpr int64_t enough = 128;
    int m = channels_out > 32 ? 64 : channels_out > 16 ? 32 : 16;
    int r = 4;
    if (blocks_of(m, r) < enough) r = 2;
    while (m > 16 && blocks_of(m, r) < enough) m /= 2;
    if (m == 64) return r == 4 ? run<64, 4>() : run<64, 2>();
    if (m == 32) return r == 4 ? run<32, 4>() : run<32, 2>();
    return r == 4 ? run<16, 4>() : run<16, 2>();
  }
};

}  // namespace

const char* modulated_conv3x3(const void* x, const void* weight, const float* styles, void* y, void* scaled,
                              int64_t images, int64_t channels_in, int64_t channels_out, int64_t height, int64_t width,
                              bool last, EpilogueOperands operands, ActivationNumbers activation, void* stream) {
  if (channels_in % 8 || channels_out % 8 || channels_in > kMostNarrowChannels || channels_out > kMostNarrowChannels)
    return "modulated_conv3x3: channels must be multiples of 8, at most 128";
  if (images >= kMostTiled || height >= kMostTiled || width >= kMostTiled || height * width >= kMostTiled)
    return "modulated_conv3x3: the image is too large";
  if (!on_boundary(x) || !on_boundary(weight))
    return "modulated_conv3x3: x and weight must start on 128-bit boundaries";
  const Rows rows{images, channels_out, height * width, last};
  return Call{static_cast<const __half*>(x),
              static_cast<const __half*>(weight),
              styles,
              static_cast<__half*>(y),
              static_cast<__half*>(scaled),
              static_cast<int>(images),
              static_cast<int>(channels_in),
              static_cast<int>(channels_out),
              static_cast<int>(height),
              static_cast<int>(width),
              last,
              operands_of<float>(operands, rows),
              activation_of<float>(activation),
              stream}
      .fastest();
}

}  // namespace speak::cuda
