// The operators for CUDA tensors: checks, outputs and workspace, then a launch function of kernels.h.
// Plain C++ over torch's stable ABI (2.10); the device code knows nothing of torch, this file nothing of the device.
#ifndef USE_CUDA
#define USE_CUDA  // has torch's shim declare its CUDA part
#endif
#include "../checks.h"
#include "kernels.h"

#include <torch/csrc/stable/accelerator.h>

#include <string>
#include <tuple>

#ifndef SPEAK_CUDA_DISPATCH_KEY  // the tests bind the emulated kernels to CPU
#define SPEAK_CUDA_DISPATCH_KEY CUDA
#endif

namespace speak::cuda_operators {
namespace {

using MaybeTensor = std::optional<Tensor>;

// Makes the tensor's GPU the current one while it lives, and knows the stream that torch uses there.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& x) : guard_(x.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream_));
  }
  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

void check_launch(const char* name, const char* error) {
  STD_TORCH_CHECK(error == nullptr, name, ": ", error ? error : "");
}

cuda::Element element_of(const Tensor& x, const char* name) {
  switch (x.scalar_type()) {
    case ScalarType::Half: return cuda::Element::float16;
    case ScalarType::BFloat16: return cuda::Element::bfloat16;
    case ScalarType::Float: return cuda::Element::float32;
    case ScalarType::Double: return cuda::Element::float64;
    default: break;
  }
  STD_TORCH_CHECK(false, name, ": the data must be float16, bfloat16, float32 or float64");
  return cuda::Element::float32;
}

const void* data_or_null(const MaybeTensor& t) { return t.has_value() ? t->const_data_ptr() : nullptr; }
void* mutable_or_null(bool wanted, const Tensor& t) { return wanted ? t.mutable_data_ptr() : nullptr; }
bool on_boundary(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

cuda::Rows rows_of(const Tensor& x, Layout layout) {
  return {x.size(0), x.size(1), x.size(2) * x.size(3), layout == Layout::channels_last};
}

// bias_act's view of x: [outer, C, inner] around `dim`, or one long row where C does not matter.
cuda::Rows rows_around(const Tensor& x, int64_t dim, Layout layout, bool with_channels) {
  if (!with_channels) return {1, 1, x.numel(), false};
  const int64_t channels = x.size(dim);
  if (layout == Layout::channels_last) return {1, channels, x.numel() / channels, true};
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
  if (inner == 1) return {1, channels, x.numel() / channels, true};
  return {x.numel() / channels / inner, channels, inner, false};
}

std::pair<Tensor, Layout> dense_around(const Tensor& x, int64_t dim) {
  auto [held, layout] = dense(x);
  if (layout == Layout::channels_last && dim != 1) return {torch::stable::contiguous(x), Layout::planar};
  return {held, layout};
}

Tensor checked_filter(const Tensor& f, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(f.scalar_type() == accumulate_type(x), name,
                  ": the filter must be float32 (float64 beside float64 data)");
  STD_TORCH_CHECK(f.is_cpu() == x.is_cpu() && (x.is_cpu() || f.get_device_index() == x.get_device_index()), name,
                  ": the filter must be on the device of x");
  return f.is_contiguous() ? f : torch::stable::contiguous(f);
}

Tensor upfirdn2d(const Tensor& x, const Tensor& f, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                 int64_t pad_x0, int64_t pad_x1, int64_t pad_y0, int64_t pad_y1, bool flip_filter, double gain) {
  check_image(x, "upfirdn2d: x");
  const cuda::Element element = element_of(x, "upfirdn2d");
  STD_TORCH_CHECK(f.dim() == 1 || f.dim() == 2, "upfirdn2d: f must be of rank 1 or 2, not ", f.dim());
  STD_TORCH_CHECK(std::isfinite(gain), "upfirdn2d: gain must be a finite number");
  const Tensor filter = checked_filter(f, x, "upfirdn2d");
  const bool separable = f.dim() == 1;
  const int64_t taps_y = f.size(0), taps_x = separable ? taps_y : f.size(1);
  STD_TORCH_CHECK(taps_y <= 4096 && taps_x <= 4096, "upfirdn2d: the filter has too many taps");
  auto [held, layout] = dense(x);
  const cuda::FilterAxis vertical{x.size(2), filtered_size(x.size(2), up_y, down_y, pad_y0, pad_y1, taps_y), up_y,
                                  down_y, pad_y0};
  const cuda::FilterAxis horizontal{x.size(3), filtered_size(x.size(3), up_x, down_x, pad_x0, pad_x1, taps_x), up_x,
                                    down_x, pad_x0};
  Tensor y = empty_in_layout(x, {x.size(0), x.size(1), vertical.result, horizontal.result}, layout);
  if (y.numel() == 0) return y;
  const OnDevice device(x);
  const cuda::Filter taps{filter.const_data_ptr(), static_cast<int>(taps_y), static_cast<int>(taps_x), separable,
                          flip_filter};
  check_launch("upfirdn2d", cuda::upfirdn2d(element, held.const_data_ptr(), y.mutable_data_ptr(), x.size(0), x.size(1),
                                            layout == Layout::channels_last, vertical, horizontal, taps, gain,
                                            device.stream()));
  return y;
}

Tensor bias_act(const Tensor& x, MaybeTensor b, int64_t dim, double slope, double gain, double clamp) {
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "bias_act: x of rank ", x.dim(), " has no dimension ", dim);
  const cuda::Element element = element_of(x, "bias_act");
  check_activation(slope, gain, clamp);
  auto [held, layout] = dense_around(x, dim);
  const MaybeTensor bias = checked_vector(b, "bias_act: b", x, {x.size(dim)});
  Tensor y = torch::stable::empty_like(held);
  if (y.numel() == 0) return y;
  const OnDevice device(x);
  check_launch("bias_act",
               cuda::epilogue(element, held.const_data_ptr(), y.mutable_data_ptr(), nullptr,
                              rows_around(held, dim, layout, bias.has_value()),
                              {nullptr, nullptr, data_or_null(bias), nullptr, true}, {slope, gain, clamp},
                              device.stream()));
  return y;
}

// Gives the derivatives' kernel its workspace and runs it.
void launch_backward(const char* name, const Tensor& y, const void* dy, const void* dscaled, const void* x,
                     const void* demodulation, const void* next_styles, const cuda::BackwardOutputs& outputs,
                     const cuda::Rows& rows, const cuda::ActivationNumbers& activation) {
  const cuda::Element element = element_of(y, name);
  const bool aligned = on_boundary(dy) && on_boundary(dscaled) && on_boundary(x) && on_boundary(y.const_data_ptr()) &&
                       on_boundary(outputs.dx);
  const OnDevice device(y);
  const Tensor workspace = empty_vector(y, {cuda::backward_workspace(element, rows, aligned, outputs)});
  check_launch(name, cuda::epilogue_backward(element, dy, dscaled, x, y.const_data_ptr(), demodulation, next_styles,
                                             outputs, rows, activation, aligned, workspace.mutable_data_ptr(),
                                             device.stream()));
}

Tensor zeros_of(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return torch::stable::new_zeros(like, std::vector<int64_t>(sizes), accumulate_type(like));
}

std::tuple<Tensor, Tensor> bias_act_backward(const Tensor& dy, const Tensor& y, int64_t dim, double slope, double gain,
                                             double clamp, bool with_bias) {
  STD_TORCH_CHECK(dim >= 0 && dim < y.dim(), "bias_act: y of rank ", y.dim(), " has no dimension ", dim);
  check_activation(slope, gain, clamp);
  check_same(dy, y, "bias_act: the gradient");
  auto [held, layout] = dense_around(y, dim);
  const Tensor gradient = in_layout(dy, layout);
  Tensor dx = torch::stable::empty_like(held);
  if (y.numel() == 0) return {dx, with_bias ? zeros_of(y, {y.size(dim)}) : empty_vector(y, {0})};
  Tensor db = empty_vector(y, {with_bias ? y.size(dim) : 0});
  const cuda::BackwardOutputs outputs{dx.mutable_data_ptr(), nullptr, nullptr, mutable_or_null(with_bias, db), nullptr,
                                      false};
  launch_backward("bias_act", held, gradient.const_data_ptr(), nullptr, nullptr, nullptr, nullptr, outputs,
                  rows_around(held, dim, layout, with_bias), {slope, gain, clamp});
  return {dx, db};
}

// The epilogue's small operands, checked and held as long as their pointers are used.
struct HeldOperands {
  MaybeTensor demodulation, noise, bias, next_styles;

  HeldOperands(const char* name, const Tensor& x, int64_t channels, int64_t height, int64_t width,
               const MaybeTensor& d, const MaybeTensor& z, const MaybeTensor& b, const MaybeTensor& s)
      : demodulation(checked_vector(d, (std::string(name) + ": demodulation").c_str(), x, {x.size(0), channels})),
        noise(checked_vector(z, (std::string(name) + ": noise").c_str(), x,
                             {z.has_value() && z->dim() == 3 && z->size(0) == 1 ? 1 : x.size(0), height, width})),
        bias(checked_vector(b, (std::string(name) + ": bias").c_str(), x, {channels})),
        next_styles(checked_vector(s, (std::string(name) + ": next_styles").c_str(), x, {x.size(0), channels})) {}

  cuda::EpilogueOperands pointers() const {
    return {data_or_null(demodulation), data_or_null(noise), data_or_null(bias), data_or_null(next_styles),
            noise.has_value() && noise->size(0) == 1};
  }
};

std::tuple<Tensor, Tensor> epilogue(const Tensor& x, MaybeTensor f, int64_t pad0, int64_t pad1,
                                    MaybeTensor demodulation, MaybeTensor noise, MaybeTensor bias,
                                    MaybeTensor next_styles, double slope, double gain, double clamp, bool plain) {
  check_image(x, "epilogue: x");
  const cuda::Element element = element_of(x, "epilogue");
  check_activation(slope, gain, clamp);
  auto [held, layout] = dense(x);
  const int64_t images = x.size(0), channels = x.size(1);
  cuda::FilterAxis vertical{x.size(2), x.size(2), 1, 1, 0}, horizontal{x.size(3), x.size(3), 1, 1, 0};
  MaybeTensor filter;
  if (f.has_value()) {
    STD_TORCH_CHECK(f->dim() == 1 && f->size(0) <= cuda::kMostBlurTaps, "epilogue: f must have rank 1 and at most ",
                    cuda::kMostBlurTaps, " taps");
    filter = checked_filter(*f, x, "epilogue");
    vertical = {x.size(2), filtered_size(x.size(2), 1, 1, pad0, pad1, f->size(0)), 1, 1, pad0};
    horizontal = {x.size(3), filtered_size(x.size(3), 1, 1, pad0, pad1, f->size(0)), 1, 1, pad0};
  }
  const HeldOperands operands("epilogue", x, channels, vertical.result, horizontal.result, demodulation, noise, bias,
                              next_styles);
  const bool with_styles = next_styles.has_value();
  const auto result = [&, layout = layout](bool wanted) {
    return wanted ? empty_in_layout(x, {images, channels, vertical.result, horizontal.result}, layout) : nothing(x);
  };
  Tensor y = result(plain), scaled = result(with_styles);
  if (y.numel() + scaled.numel() == 0) return {y, scaled};
  const OnDevice device(x);
  const cuda::ActivationNumbers activation{slope, gain, clamp};
  void *const to_y = mutable_or_null(plain, y), *const to_scaled = mutable_or_null(with_styles, scaled);
  if (filter.has_value())
    check_launch("epilogue", cuda::blur_epilogue(element, held.const_data_ptr(), to_y, to_scaled, images, channels,
                                                 layout == Layout::channels_last, vertical, horizontal,
                                                 filter->const_data_ptr(), static_cast<int>(filter->size(0)),
                                                 operands.pointers(), activation, device.stream()));
  else
    check_launch("epilogue", cuda::epilogue(element, held.const_data_ptr(), to_y, to_scaled, rows_of(x, layout),
                                            operands.pointers(), activation, device.stream()));
  return {y, scaled};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> epilogue_backward(
    MaybeTensor dy, MaybeTensor dscaled, const Tensor& x, const Tensor& y, MaybeTensor demodulation,
    MaybeTensor next_styles, double slope, double gain, double clamp, int64_t noise_batch, bool with_bias) {
  check_image(x, "epilogue: x");
  check_same(y, x, "epilogue: y");
  check_activation(slope, gain, clamp);
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  STD_TORCH_CHECK(noise_batch == 0 || noise_batch == 1 || noise_batch == images, "epilogue: noise for ", noise_batch,
                  " images beside ", images);
  STD_TORCH_CHECK(dy.has_value() || dscaled.has_value(), "epilogue: there is no gradient to pass on");
  STD_TORCH_CHECK(!dscaled.has_value() || next_styles.has_value(), "epilogue: dscaled needs next_styles");
  auto [held, layout] = dense(x);
  const Tensor result = in_layout(y, layout);
  const auto gradient = [&, layout = layout](const MaybeTensor& g, const char* name) -> MaybeTensor {
    if (!g.has_value()) return std::nullopt;
    check_same(*g, x, name);
    return in_layout(*g, layout);
  };
  const MaybeTensor by_y = gradient(dy, "epilogue: dy"), by_scaled = gradient(dscaled, "epilogue: dscaled");
  const HeldOperands operands("epilogue", x, channels, height, width, demodulation, std::nullopt, std::nullopt,
                              next_styles);
  const bool with_demodulation = demodulation.has_value(), with_styles = dscaled.has_value();
  const bool empty = x.numel() == 0;
  const auto sum = [&](bool wanted, std::initializer_list<int64_t> sizes) {
    if (!wanted) return empty_vector(x, {0});
    return empty ? zeros_of(x, sizes) : empty_vector(x, sizes);
  };
  Tensor dx = torch::stable::empty_like(held);
  Tensor ddemodulation = sum(with_demodulation, {images, channels});
  Tensor dnoise = sum(noise_batch > 0, {noise_batch, height, width});
  Tensor dbias = sum(with_bias, {channels});
  Tensor dnext_styles = sum(with_styles, {images, channels});
  if (!empty) {
    const cuda::BackwardOutputs outputs{dx.mutable_data_ptr(),
                                        mutable_or_null(with_demodulation, ddemodulation),
                                        mutable_or_null(noise_batch > 0, dnoise),
                                        mutable_or_null(with_bias, dbias),
                                        mutable_or_null(with_styles, dnext_styles),
                                        noise_batch == 1};
    launch_backward("epilogue", result, data_or_null(by_y), data_or_null(by_scaled), held.const_data_ptr(),
                    data_or_null(operands.demodulation), data_or_null(operands.next_styles), outputs,
                    rows_of(x, layout), {slope, gain, clamp});
  }
  return {dx, ddemodulation, dnoise, dbias, dnext_styles};
}

Tensor on_boundaries(const Tensor& t) { return on_boundary(t.const_data_ptr()) ? t : torch::stable::clone(t); }

std::tuple<Tensor, Tensor> modulated_conv3x3(const Tensor& x, const Tensor& weight, const Tensor& styles,
                                             MaybeTensor demodulation, MaybeTensor noise, MaybeTensor bias,
                                             MaybeTensor next_styles, double slope, double gain, double clamp,
                                             bool plain) {
  check_image(x, "modulated_conv3x3: x");
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Half && weight.scalar_type() == ScalarType::Half,
                  "modulated_conv3x3: x and weight must be float16");
  STD_TORCH_CHECK(weight.dim() == 3 && weight.size(0) == 9 && weight.size(2) == x.size(1),
                  "modulated_conv3x3: weight must be [9, C_out, C_in] with the channels of x, ", x.size(1));
  STD_TORCH_CHECK(weight.is_cpu() == x.is_cpu() && (x.is_cpu() || weight.get_device_index() == x.get_device_index()),
                  "modulated_conv3x3: weight must be on the device of x");
  check_activation(slope, gain, clamp);
  const int64_t images = x.size(0), channels_in = x.size(1), channels_out = weight.size(1);
  const int64_t height = x.size(2), width = x.size(3);
  auto [dense_x, layout] = dense(x);
  const Tensor held = on_boundaries(dense_x);
  const Tensor packed = on_boundaries(weight.is_contiguous() ? weight : torch::stable::contiguous(weight));
  const MaybeTensor modulation = checked_vector(styles, "modulated_conv3x3: styles", x, {images, channels_in});
  const HeldOperands operands("modulated_conv3x3", x, channels_out, height, width, demodulation, noise, bias,
                              next_styles);
  const bool with_styles = next_styles.has_value();
  const auto result = [&, layout = layout](bool wanted) {
    return wanted ? empty_in_layout(x, {images, channels_out, height, width}, layout) : nothing(x);
  };
  Tensor y = result(plain), scaled = result(with_styles);
  if (y.numel() + scaled.numel() == 0) return {y, scaled};
  const OnDevice device(x);
  check_launch("modulated_conv3x3",
               cuda::modulated_conv3x3(held.const_data_ptr(), packed.const_data_ptr(),
                                       static_cast<const float*>(modulation->const_data_ptr()),
                                       mutable_or_null(plain, y), mutable_or_null(with_styles, scaled), images,
                                       channels_in, channels_out, height, width, layout == Layout::channels_last,
                                       operands.pointers(), {slope, gain, clamp}, device.stream()));
  return {y, scaled};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(speak, SPEAK_CUDA_DISPATCH_KEY, m) {
  m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d));
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
  m.impl("epilogue", TORCH_BOX(&epilogue));
  m.impl("epilogue_backward", TORCH_BOX(&epilogue_backward));
  m.impl("modulated_conv3x3", TORCH_BOX(&modulated_conv3x3));
}

}  // namespace speak::cuda_operators
