// What every kernel asks of its tensors before it touches memory, on CPU and CUDA alike.
// speak/ops says the same to users earlier and more kindly; these stand between a direct call and a crash.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace speak {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

enum class Layout { planar, channels_last };  // NCHW, NHWC

// Strides of dimensions of size 1 say nothing, so they are passed over. Planar wins where both hold.
inline bool has_strides_of_channels_last(const Tensor& x) {
  if (x.dim() != 4) return false;
  const int64_t order[4] = {1, 3, 2, 0};
  int64_t expected = 1;
  for (int64_t d : order) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// x itself where its memory is planar or channels-last, else a planar copy.
inline std::pair<Tensor, Layout> dense(const Tensor& x) {
  if (x.is_contiguous()) return {x, Layout::planar};
  if (has_strides_of_channels_last(x)) return {x, Layout::channels_last};
  return {torch::stable::contiguous(x), Layout::planar};
}

// A copy of x in `layout` unless it already is.
inline Tensor in_layout(const Tensor& x, Layout layout) {
  if (layout == Layout::planar) return x.is_contiguous() ? x : torch::stable::contiguous(x);
  if (has_strides_of_channels_last(x)) return x;
  return torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
}

inline Tensor empty_in_layout(const Tensor& like, std::initializer_list<int64_t> sizes, Layout layout) {
  const std::vector<int64_t> shape(sizes);
  return torch::stable::empty(
      shape, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      layout == Layout::planar ? torch::headeronly::MemoryFormat::Contiguous
                               : torch::headeronly::MemoryFormat::ChannelsLast);
}

// Sums and small vectors are float32, beside float64 data float64.
inline ScalarType accumulate_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor empty_vector(const Tensor& like, std::initializer_list<int64_t> sizes) {
  const std::vector<int64_t> shape(sizes);
  return torch::stable::empty(shape, accumulate_type(like), std::nullopt, like.device());
}

inline Tensor nothing(const Tensor& like) {
  return torch::stable::empty(std::vector<int64_t>{0}, like.scalar_type(), std::nullopt, like.device());
}

inline void check_image(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.dim() == 4, name, " must be [N, C, H, W], not of rank ", x.dim());
}

// A small operand: contiguous, on x's device, of x's accumulation type and exactly these sizes.
inline std::optional<Tensor> checked_vector(const std::optional<Tensor>& v, const char* name, const Tensor& x,
                                            std::initializer_list<int64_t> sizes) {
  if (!v.has_value()) return std::nullopt;
  STD_TORCH_CHECK(v->scalar_type() == accumulate_type(x), name, " must be float32 (float64 beside float64 data)");
  STD_TORCH_CHECK(v->is_cpu() == x.is_cpu() && (x.is_cpu() || v->get_device_index() == x.get_device_index()), name,
                  " must be on the device of x");
  STD_TORCH_CHECK(v->dim() == static_cast<int64_t>(sizes.size()), name, " must have rank ", sizes.size(), ", not ",
                  v->dim());
  int64_t d = 0;
  for (int64_t size : sizes) {
    STD_TORCH_CHECK(v->size(d) == size, name, " must be of size ", size, " in dimension ", d, ", not ", v->size(d));
    ++d;
  }
  return v->is_contiguous() ? *v : torch::stable::contiguous(*v);
}

inline void check_same(const Tensor& a, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(a.scalar_type() == x.scalar_type(), name, " must have the dtype of x");
  STD_TORCH_CHECK(a.is_cpu() == x.is_cpu(), name, " must be on the device of x");
  STD_TORCH_CHECK(a.dim() == x.dim(), name, " must have the rank of x");
  for (int64_t d = 0; d < x.dim(); ++d) STD_TORCH_CHECK(a.size(d) == x.size(d), name, " must have the shape of x");
}

inline void check_activation(double slope, double gain, double clamp) {
  // so that max(t, slope * t) is the activation and its result's sign tells the derivative
  STD_TORCH_CHECK(slope >= 0 && slope <= 1, "slope must be from 0 to 1, not ", slope);
  STD_TORCH_CHECK(std::isfinite(gain) && gain > 0, "gain must be finite and above zero, not ", gain);
  STD_TORCH_CHECK(!std::isnan(clamp), "clamp must be a number");
}

// One axis of an up-filter-down: how many outputs there are.
inline int64_t filtered_size(int64_t size, int64_t up, int64_t down, int64_t pad0, int64_t pad1, int64_t taps) {
  STD_TORCH_CHECK(up >= 1 && down >= 1, "up and down must be at least 1");
  STD_TORCH_CHECK(taps >= 1, "the filter must have a tap");
  constexpr int64_t most = int64_t(1) << 40;
  STD_TORCH_CHECK(std::abs(pad0) < most && std::abs(pad1) < most && up < most && down < most,
                  "paddings and factors must be of sensible size");
  const int64_t padded = size * up + pad0 + pad1;
  STD_TORCH_CHECK(padded >= taps, "the padded image (", padded, ") must be at least as large as the filter (", taps,
                  ")");
  return (padded - taps) / down + 1;
}

}  // namespace speak
