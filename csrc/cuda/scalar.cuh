// Numbers on the device: element types and what they are summed in, 128-bit loads and stores, shared memory.
// Compiled by nvcc, by NVRTC, and by g++ against tests/cuda/emulation; it knows nothing of torch.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#ifdef __CUDACC_RTC__  // NVRTC has no standard headers
using int64_t = long long;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

#define SPEAK_DEVICE __device__ __forceinline__

// Aligned for wmma, which wants 256-bit boundaries. The emulator has its own, which poisons and fences the memory.
#ifndef SPEAK_SHARED
#define SPEAK_SHARED(type, name, dimensions) __shared__ __align__(32) type name dimensions
#endif

namespace speak::cuda {

// Half and bfloat16 are only ever stored: everything between a load and a store is float32 (float64 for float64).
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using accumulate_t = typename Accumulate<T>::type;

SPEAK_DEVICE float widen(float value) { return value; }
SPEAK_DEVICE double widen(double value) { return value; }
SPEAK_DEVICE float widen(__half value) { return __half2float(value); }
SPEAK_DEVICE float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
SPEAK_DEVICE T narrow(accumulate_t<T> value) {
  return value;
}
template <>
SPEAK_DEVICE __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
SPEAK_DEVICE __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// What moves BYTES at once.
template <int BYTES>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<2> {
  using type = unsigned short;
};

// Elements in a 128-bit access.
template <class T>
constexpr int kVector = 16 / sizeof(T);

// N neighbours in memory, in as few accesses as there can be, which must be aligned to their own size: 128 bits, or
// all N where they are less.
template <class T, int N>
struct Pack {
  static constexpr int bytes = N * sizeof(T), width = bytes < 16 ? bytes : 16, words = bytes / width;
  using word = typename Word<width>::type;
  T value[N];

  SPEAK_DEVICE void load(const T* from) {
    word held[words];
#pragma unroll
    for (int i = 0; i < words; ++i) held[i] = reinterpret_cast<const word*>(from)[i];
    memcpy(value, held, bytes);
  }
  // To global memory through an intrinsic: the compiler takes an ordinary store apart where a branch beside it stores
  // the elements one by one, or where they come out of branches, and does not always put it together again.
  SPEAK_DEVICE void store(T* to) const {
    word held[words];
    memcpy(held, value, bytes);
#pragma unroll
    for (int i = 0; i < words; ++i) __stwb(reinterpret_cast<word*>(to) + i, held[i]);
  }
  SPEAK_DEVICE void store_shared(T* to) const {
    word held[words];
    memcpy(held, value, bytes);
#pragma unroll
    for (int i = 0; i < words; ++i) reinterpret_cast<word*>(to)[i] = held[i];
  }
};

template <int N, class T>
SPEAK_DEVICE void load(const T* from, accumulate_t<T> (&to)[N]) {
  Pack<T, N> pack;
  pack.load(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(pack.value[i]);
}

template <int N, class T>
SPEAK_DEVICE Pack<T, N> narrowed(const accumulate_t<T> (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.value[i] = narrow<T>(from[i]);
  return pack;
}

template <int N, class T>
SPEAK_DEVICE void store(const accumulate_t<T> (&from)[N], T* to) {
  narrowed<N, T>(from).store(to);
}

template <int N, class T>
SPEAK_DEVICE void store_shared(const accumulate_t<T> (&from)[N], T* to) {
  narrowed<N, T>(from).store_shared(to);
}

// The first `count` of N: one access where all are wanted (and `wide` allows), else one by one, the rest zero.
template <int N, class T>
SPEAK_DEVICE void load_some(const T* from, int64_t count, accumulate_t<T> (&to)[N]) {
  if (count >= N) return load<N>(from, to);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = i < count ? widen(from[i]) : accumulate_t<T>(0);
}

template <int N, class T>
SPEAK_DEVICE void store_some(const accumulate_t<T> (&from)[N], int64_t count, bool wide, T* to) {
  if (wide && count >= N) return store<N>(from, to);
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < count) to[i] = narrow<T>(from[i]);
}

// 64-bit division takes some 70 instructions, 32-bit some 20; nearly every index is small.
SPEAK_DEVICE int64_t divide(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// The same sum in every lane of each group of `lanes` (a power of two), added in the same order every time.
template <class A>
SPEAK_DEVICE A sum_over_lanes(A value, int lanes = 32) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

}  // namespace speak::cuda
