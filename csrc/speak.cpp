// Every operator's signature, in one place. Kernels register themselves for their device under the same names:
// cpu/*.cpp for CPU, cuda/bindings.cpp for CUDA. Derivatives, autocast and meta shapes are Python's (speak/ops).
#include <torch/csrc/stable/library.h>

#ifndef SPEAK_KERNELS_TAG
#error "setup.py defines SPEAK_KERNELS_TAG: the tag that speak/ops/extension.py asks for"
#endif

// Read from the file's bytes before it is loaded, so that a stale library is refused and never runs.
extern "C" __attribute__((used, visibility("default"))) const char speak_kernels_build[] =
    "speak_kernels_build{" SPEAK_KERNELS_TAG "}";

STABLE_TORCH_LIBRARY(speak, m) {
  // x [N,C,H,W]; f [taps] (separable) or [FH,FW]; flip_filter false is a true convolution.
  m.def("upfirdn2d(Tensor x, Tensor f, int up_x, int up_y, int down_x, int down_y, int pad_x0, int pad_x1, "
        "int pad_y0, int pad_y1, bool flip_filter, float gain) -> Tensor");

  // y = limit(act(x + b) * gain), act(t) = t > 0 ? t : slope * t; clamp < 0: no limit.
  m.def("bias_act(Tensor x, Tensor? b, int dim, float slope, float gain, float clamp) -> Tensor");
  // dx = dy * gain * (y > 0 ? 1 : slope) where |y| < clamp; db: dx summed over all but `dim`, or empty.
  m.def("bias_act_backward(Tensor dy, Tensor y, int dim, float slope, float gain, float clamp, bool with_bias) "
        "-> (Tensor, Tensor)");

  // y = limit(act(blur(x) * demodulation + noise + bias) * gain), scaled = y * next_styles: one pass.
  // x [N,C,H,W], f [taps] or none, demodulation and next_styles [N,C], noise [1 or N,H',W'], bias [C].
  // What is not asked for (y without `plain`, scaled without next_styles) comes back empty.
  m.def("epilogue(Tensor x, Tensor? f, int pad0, int pad1, Tensor? demodulation, Tensor? noise, Tensor? bias, "
        "Tensor? next_styles, float slope, float gain, float clamp, bool plain) -> (Tensor, Tensor)");
  // The same, with a blur of four taps, of an up-sampled image that several convolutions made: its even and odd rows,
  // each pixel of theirs two neighbours, even [N,2C,H+1,W+1], odd [N,2C,H,W+1]; or with columns apart as well, even
  // [N,C,H+1,W+1], odd [N,C,H,W+1], even_right [N,C,H+1,W], odd_right [N,C,H,W]. CPU; without derivative.
  m.def("epilogue_of_parts(Tensor even, Tensor odd, Tensor? even_right, Tensor? odd_right, Tensor f, int pad0, "
        "int pad1, Tensor? demodulation, Tensor? noise, Tensor? bias, Tensor? next_styles, float slope, float gain, "
        "float clamp, bool plain) -> (Tensor, Tensor)");
  // (y @ rgb^T, scaled) for what is only looked at: CPU, no blur, rgb [N,3,C], C a multiple of 16; without derivative.
  m.def("epilogue_rgb(Tensor x, Tensor? demodulation, Tensor? noise, Tensor? bias, Tensor? next_styles, Tensor rgb, "
        "float slope, float gain, float clamp) -> (Tensor, Tensor)");
  // Derivatives by x, demodulation, noise [noise_batch,H,W] (0: none), bias and next_styles.
  m.def("epilogue_backward(Tensor? dy, Tensor? dscaled, Tensor x, Tensor y, Tensor? demodulation, "
        "Tensor? next_styles, float slope, float gain, float clamp, int noise_batch, bool with_bias) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // CUDA, float16, stride 1, at most 128 channels: style scaling, convolution and epilogue in one kernel.
  // weight [9, C_out, C_in], tap-major.
  m.def("modulated_conv3x3(Tensor x, Tensor weight, Tensor styles, Tensor? demodulation, Tensor? noise, "
        "Tensor? bias, Tensor? next_styles, float slope, float gain, float clamp, bool plain) -> (Tensor, Tensor)");
}
