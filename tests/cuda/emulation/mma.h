// nvcuda::wmma for 16x16x16 products, which a whole warp makes together. Each lane holds eight elements of a fragment:
// which ones CUDA leaves open; here they are spread so that no lane holds neighbours.
#pragma once
#include "emulation.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16);
  T element[8];
};

inline int row(int i) { return i * 2 + emulation::lane() / 16; }
inline int column() { return emulation::lane() % 16; }

template <class T>
void check_tile(const T* tile, unsigned stride) {
  if (reinterpret_cast<uintptr_t>(tile) % 32) emulation::fault("a matrix tile that does not start on 256 bits");
  if (stride * sizeof(T) % 16) emulation::fault("a matrix tile whose rows do not start on 128 bits");
}

template <class Use, int M, int N, int K, class T, class Layout>
void fill_fragment(fragment<Use, M, N, K, T, Layout>& f, T value) {
  std::fill(f.element, f.element + 8, value);
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* tile, unsigned stride) {
  check_tile(tile, stride);
  emulation::warp_barrier(__LINE__);
  for (int i = 0; i < 8; ++i)
    f.element[i] = tile[std::is_same_v<Layout, row_major> ? row(i) * stride + column() : column() * stride + row(i)];
}

template <class T>
void store_matrix_sync(T* tile, const fragment<accumulator, 16, 16, 16, T>& f, unsigned stride, layout_t layout) {
  check_tile(tile, stride);
  for (int i = 0; i < 8; ++i)
    tile[layout == mem_row_major ? row(i) * stride + column() : column() * stride + row(i)] = f.element[i];
}

template <class A, class B, class C>
void mma_sync(C& d, const A& a, const B& b, const C& c) {
  emulation::Exchange& exchange = emulation::warp_exchange();
  for (int i = 0; i < 8; ++i) {
    exchange.a[row(i) * 16 + column()] = __half2float(a.element[i]);
    exchange.b[row(i) * 16 + column()] = __half2float(b.element[i]);
  }
  emulation::warp_barrier(__LINE__);
  for (int i = 0; i < 8; ++i) {
    float sum = c.element[i];
    for (int k = 0; k < 16; ++k) sum += exchange.a[row(i) * 16 + k] * exchange.b[k * 16 + column()];
    d.element[i] = sum;
  }
  emulation::warp_barrier(__LINE__);
}

}  // namespace nvcuda::wmma
