// Launches the epilogue with a blur.
#include "blur_epilogue.cuh"
#include "launch.cuh"

namespace speak::cuda {
namespace {

template <class T>
struct Call {
  const T* x;
  T *y, *scaled;
  Rows rows;  // of the result
  FilterAxis vertical, horizontal;
  const accumulate_t<T>* filter;
  int taps;
  Operands<accumulate_t<T>> operands;
  Activation<accumulate_t<T>> activation;
  void* stream;

  template <int TAPS, int WIDTH, int ROWS>
  const char* planar() const {
    using G = Tile<1, 1, TAPS, WIDTH, ROWS>;
    const int64_t planes = rows.images * rows.channels;
    const int64_t tiles = groups_of(horizontal.result, WIDTH) * groups_of(vertical.result, G::height);
    if (tiles >= kMostTiled || vertical.size >= kMostTiled || horizontal.size >= kMostTiled)
      return "blur: the image is too large";
    const bool aligned = horizontal.result % 4 == 0 && on_boundary(y) && on_boundary(scaled);
    Operands<accumulate_t<T>> by_row = operands;
    by_row.aligned = by_row.aligned && horizontal.result % 4 == 0;  // threads start at columns, not at pixels, of 4
    const dim3 grid(static_cast<unsigned>(tiles), blocks(planes, kMostPlanes));
    return SPEAK_LAUNCH((&blur_planar<T, TAPS, WIDTH, ROWS>), grid, kTileThreads, stream, x, y, scaled, filter, taps,
                        planes, static_cast<int>(vertical.size), static_cast<int>(horizontal.size),
                        static_cast<int>(vertical.result), static_cast<int>(horizontal.result),
                        static_cast<int>(vertical.pad), static_cast<int>(horizontal.pad), by_row, activation,
                        aligned);
  }

  template <int V, int TAPS>
  const char* last() const {
    const int64_t units = rows.images * groups_of(vertical.result, kBlurLastRows) * horizontal.result *
                          (rows.channels / V);
    return SPEAK_LAUNCH((&blur_last<T, V, TAPS>), blocks(groups_of(units, 128)), 128, stream, x, y, scaled, filter,
                        taps, rows.images, vertical, horizontal, operands, activation);
  }

  template <int TAPS>
  const char* fastest() const {
    if (!rows.last) {
      constexpr int rows = sizeof(T) == 8 ? 4 : 8;  // eight rows of float64 sums do not fit into registers
      if constexpr (TAPS == 4)
        if (horizontal.result > 64) return planar<TAPS, 128, rows>();
      return planar<TAPS, 32, 2>();
    }
    const bool wide = rows.channels % kVector<T> == 0 && on_boundary(x) && on_boundary(y) && on_boundary(scaled);
    return wide ? last<kVector<T>, TAPS>() : last<1, TAPS>();
  }
};

}  // namespace

const char* blur_epilogue(Element element, const void* x, void* y, void* scaled, int64_t images, int64_t channels,
                          bool last, FilterAxis vertical, FilterAxis horizontal, const void* filter, int taps,
                          EpilogueOperands operands, ActivationNumbers activation, void* stream) {
  if (taps < 1 || taps > kMostBlurTaps) return "blur: from 1 to 8 taps";
  const Rows rows{images, channels, vertical.result * horizontal.result, last};
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulate_t<T>;
    const Call<T> call{static_cast<const T*>(x),  static_cast<T*>(y),
                       static_cast<T*>(scaled),   rows,
                       vertical,                  horizontal,
                       static_cast<const A*>(filter), taps,
                       operands_of<A>(operands, rows), activation_of<A>(activation), stream};
    return taps <= 4 ? call.template fastest<4>() : call.template fastest<8>();
  });
}

}  // namespace speak::cuda
