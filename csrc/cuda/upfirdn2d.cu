// Launches upfirdn2d: the tile where a StyleGAN2 filter meets planar data, else the kernel that takes anything.
#include "launch.cuh"
#include "upfirdn2d.cuh"

namespace speak::cuda {
namespace {

template <class T>
struct Call {
  const T* x;
  T* y;
  int64_t images, channels;
  bool last;
  FilterAxis vertical, horizontal;
  Taps<accumulate_t<T>> filter;
  accumulate_t<T> gain;
  void* stream;

  // How far before output 0 the zero-stuffed image has a pixel under the first tap, for factors up to 2.
  static int shift(const FilterAxis& axis) { return axis.pad % axis.up != 0; }

  template <int UP, int DOWN, int WIDTH, int ROWS>
  const char* tile() const {
    using G = Tile<UP, DOWN, 4, WIDTH, ROWS>;
    const int shift_y = shift(vertical), shift_x = shift(horizontal);
    const int64_t tiles =
        groups_of(horizontal.result + shift_x, WIDTH) * groups_of(vertical.result + shift_y, G::height);
    if (tiles >= kMostTiled) return any();
    const bool aligned = shift_x == 0 && horizontal.result % 4 == 0 && on_boundary(y);
    const dim3 grid(static_cast<unsigned>(tiles), blocks(images * channels, kMostPlanes));
    return SPEAK_LAUNCH((&upfirdn2d_tile<T, UP, DOWN, WIDTH, ROWS>), grid, kTileThreads, stream, x, y, filter, gain,
                        images * channels, static_cast<int>(vertical.size), static_cast<int>(horizontal.size),
                        static_cast<int>(vertical.result), static_cast<int>(horizontal.result),
                        static_cast<int>(vertical.pad), static_cast<int>(horizontal.pad), shift_y, shift_x, aligned);
  }

  template <int V, bool LAST>
  const char* any_of() const {
    const int64_t outputs = images * channels * vertical.result * horizontal.result / V;
    return SPEAK_LAUNCH((&upfirdn2d_any<T, V, LAST>), blocks(groups_of(outputs, 256)), 256, stream, x, y, filter, gain,
                        images, channels, vertical, horizontal);
  }

  const char* any() const {
    if (!last) return any_of<1, false>();
    const bool wide = channels % kVector<T> == 0 && on_boundary(x) && on_boundary(y);
    return wide ? any_of<kVector<T>, true>() : any_of<1, true>();
  }

  bool both(int64_t up, int64_t down) const {
    return vertical.up == up && horizontal.up == up && vertical.down == down && horizontal.down == down;
  }

  const char* fastest() const {
    const int64_t pad_y = vertical.pad < 0 ? -vertical.pad : vertical.pad;
    const int64_t pad_x = horizontal.pad < 0 ? -horizontal.pad : horizontal.pad;
    const bool small = vertical.size < kMostTiled && horizontal.size < kMostTiled && vertical.result < kMostTiled &&
                       horizontal.result < kMostTiled && pad_y < kMostTiled && pad_x < kMostTiled;
    if (last || filter.height != 4 || filter.width != 4 || !small) return any();
    const bool narrow = horizontal.result <= 64;
    constexpr int rows = sizeof(T) == 8 ? 4 : 8;  // eight rows of float64 sums do not fit into registers
    if (both(1, 1)) return narrow ? tile<1, 1, 32, 2>() : tile<1, 1, 128, rows>();
    if (both(2, 1)) return narrow ? tile<2, 1, 32, 2>() : tile<2, 1, 128, 4>();
    if (both(1, 2)) return horizontal.result <= 32 ? tile<1, 2, 16, 1>() : tile<1, 2, 64, 2>();
    return any();
  }
};

}  // namespace

const char* upfirdn2d(Element element, const void* x, void* y, int64_t images, int64_t channels, bool last,
                      FilterAxis vertical, FilterAxis horizontal, Filter filter, double gain, void* stream) {
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulate_t<T>;
    const Taps<A> taps{static_cast<const A*>(filter.taps), filter.height, filter.width, filter.separable, filter.flip};
    return Call<T>{static_cast<const T*>(x), static_cast<T*>(y), images, channels, last, vertical, horizontal, taps,
                   static_cast<A>(gain), stream}
        .fastest();
  });
}

}  // namespace speak::cuda
