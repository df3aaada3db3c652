// How kernels are launched: through one macro, so that NVRTC and the emulator under tests/ can read the same files.
#pragma once
#include "activation.cuh"
#include "kernels.h"

#ifndef SPEAK_LAUNCH
#ifdef __CUDACC_RTC__
// NVRTC cannot launch; naming the kernel makes it compile that very instance.
#define SPEAK_LAUNCH(kernel, grid, block, stream, ...) (reinterpret_cast<const void*>(kernel) ? nullptr : "")
#else
#include <cuda_runtime.h>
namespace speak::cuda {
inline const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
}  // namespace speak::cuda
#define SPEAK_LAUNCH(kernel, grid, block, stream, ...) \
  (kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__), ::speak::cuda::last_error())
#endif
#endif

namespace speak::cuda {

// The tests lower these two, so that kernels stride over what is left where nothing is large.
#ifndef SPEAK_MOST_BLOCKS
#define SPEAK_MOST_BLOCKS (int64_t(1) << 30)
#define SPEAK_MOST_PLANES 65535
#endif
constexpr int64_t kMostBlocks = SPEAK_MOST_BLOCKS;  // along x
constexpr int64_t kMostPlanes = SPEAK_MOST_PLANES;  // along y and z
constexpr int64_t kMostTiled = int64_t(1) << 28;    // tiled kernels count rows and columns, and tiles, in 32 bits

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t groups_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
inline unsigned blocks(int64_t wanted, int64_t most = kMostBlocks) {
  return static_cast<unsigned>(smaller(wanted, most));
}

inline bool on_boundary(const void* pointer, int64_t bytes = 16) {
  return reinterpret_cast<uint64_t>(pointer) % bytes == 0;  // null counts as aligned
}

// Calls function(zero) with a zero of the element's type.
template <class F>
const char* dispatch(Element element, const F& function) {
  switch (element) {
    case Element::float16: return function(__half());
    case Element::bfloat16: return function(__nv_bfloat16());
    case Element::float32: return function(float());
    case Element::float64: return function(double());
  }
  return "an element type without a kernel";
}

template <class A>
Activation<A> activation_of(const ActivationNumbers& a) {
  return {static_cast<A>(a.slope), static_cast<A>(a.gain), static_cast<A>(a.clamp)};
}

template <class A>
Operands<A> operands_of(const EpilogueOperands& o, const Rows& rows) {
  const bool aligned = (rows.last ? rows.channels : rows.pixels) % kVector<A> == 0 && on_boundary(o.demodulation) &&
                       on_boundary(o.noise) && on_boundary(o.bias) && on_boundary(o.next_styles);
  return {static_cast<const A*>(o.demodulation), static_cast<const A*>(o.noise), static_cast<const A*>(o.bias),
          static_cast<const A*>(o.next_styles), o.noise_shared ? 0 : rows.pixels, rows.channels, rows.pixels, aligned};
}

}  // namespace speak::cuda
