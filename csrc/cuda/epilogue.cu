// Launches the epilogue without a blur, and bias_act.
#include "epilogue.cuh"
#include "launch.cuh"

namespace speak::cuda {
namespace {

template <class T, int V, bool LAST>
const char* launch(const void* x, void* y, void* scaled, const Rows& rows, const EpilogueOperands& operands,
                   const ActivationNumbers& activation, void* stream) {
  using A = accumulate_t<T>;
  constexpr int threads = 256;
  const int64_t count = rows.images * rows.channels * rows.pixels;
  return SPEAK_LAUNCH((&epilogue_pointwise<T, V, LAST>), blocks(groups_of(count, V * threads)), threads, stream,
                      static_cast<const T*>(x), static_cast<T*>(y), static_cast<T*>(scaled), count,
                      operands_of<A>(operands, rows), activation_of<A>(activation));
}

}  // namespace

const char* epilogue(Element element, const void* x, void* y, void* scaled, Rows rows, EpilogueOperands operands,
                     ActivationNumbers activation, void* stream) {
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const bool wide = on_boundary(x) && on_boundary(y) && on_boundary(scaled);
    if (rows.last)
      return wide ? launch<T, kVector<T>, true>(x, y, scaled, rows, operands, activation, stream)
                  : launch<T, 1, true>(x, y, scaled, rows, operands, activation, stream);
    return wide ? launch<T, kVector<T>, false>(x, y, scaled, rows, operands, activation, stream)
                : launch<T, 1, false>(x, y, scaled, rows, operands, activation, stream);
  });
}

}  // namespace speak::cuda
