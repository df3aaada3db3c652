// Launches the derivatives of the epilogue and of bias_act: one pass, then what adds up its partial sums.
#include "epilogue_backward.cuh"
#include "launch.cuh"

namespace speak::cuda {
namespace {

constexpr int64_t kEnoughWarps = 4096;  // to fill a large GPU; fewer, larger patches leave fewer partial sums

bool wide_rows(Element element, const Rows& rows, bool aligned) {
  const int64_t vector = element == Element::float64 ? 2 : element == Element::float32 ? 4 : 8;
  const int64_t length = rows.last ? rows.channels : rows.pixels;
  return aligned && (length % vector == 0 || rows.images * (rows.last ? rows.pixels : rows.channels) == 1);
}

Patches patches_of(const Rows& rows, int64_t vector) {
  const int64_t row = rows.last ? rows.channels : rows.pixels, column = rows.last ? rows.pixels : rows.channels;
  Patches patches;
  patches.lanes = 32;
  if (rows.last)
    while (patches.lanes > 1 && patches.lanes / 2 * vector >= row) patches.lanes /= 2;
  const int64_t at_once = 32 / patches.lanes, least = rows.last ? 8 * at_once : 8;
  patches.run = patches.lanes * vector;
  patches.along = groups_of(row, patches.run);
  patches.depth = column;
  while (patches.depth > least && rows.images * patches.along * groups_of(column, patches.depth) < kEnoughWarps)
    patches.depth = groups_of(patches.depth, 2);
  patches.depth = groups_of(patches.depth, at_once) * at_once;
  patches.across = groups_of(column, patches.depth);
  return patches;
}

int64_t channel_patches(const Rows& rows, const Patches& patches) { return rows.last ? patches.across : patches.along; }
int64_t noise_patches(const Rows& rows, const Patches& patches) { return rows.last ? patches.along : patches.across; }

template <class T, int V>
const char* launch(BackwardData<T> data, BackwardOutputs outputs, const Rows& rows,
                   const ActivationNumbers& numbers, accumulate_t<T>* workspace, void* stream) {
  using A = accumulate_t<T>;
  const Patches patches = patches_of(rows, V);
  const int64_t sums = rows.images * rows.channels * channel_patches(rows, patches);
  const auto take = [&workspace](bool wanted, int64_t size) {
    A* const taken = wanted ? workspace : nullptr;
    if (wanted) workspace += size;
    return taken;
  };
  data.by_demodulation = take(outputs.ddemodulation, sums);
  data.by_bias = take(outputs.dbias, sums);
  data.by_styles = take(outputs.dnext_styles, sums);
  data.by_noise = take(outputs.dnoise, 0);

  const int64_t warps = rows.images * patches.along * patches.across;
  constexpr int threads = 32 * kBackwardWarps;
  const Activation<A> activation = activation_of<A>(numbers);
  const char* error =
      rows.last ? SPEAK_LAUNCH((&backward_last<T, V>), blocks(groups_of(warps, kBackwardWarps)), threads, stream, data,
                               patches, activation)
                : SPEAK_LAUNCH((&backward_planar<T, V>), blocks(groups_of(warps, kBackwardWarps)), threads, stream,
                               data, patches, activation);
  if (!error && (outputs.ddemodulation || outputs.dbias || outputs.dnext_styles))
    error = SPEAK_LAUNCH((&finish_channel_sums<A>), blocks(groups_of(rows.channels, kBackwardWarps)), threads, stream,
                         data.by_demodulation, data.by_bias, data.by_styles, static_cast<A*>(outputs.ddemodulation),
                         static_cast<A*>(outputs.dbias), static_cast<A*>(outputs.dnext_styles), rows.images,
                         rows.channels, channel_patches(rows, patches));
  if (!error && outputs.dnoise) {
    const int64_t results = (outputs.noise_shared ? 1 : rows.images) * rows.pixels;
    error = SPEAK_LAUNCH((&finish_noise_sums<A>), blocks(groups_of(results, 256)), 256, stream, data.by_noise,
                         static_cast<A*>(outputs.dnoise), results,
                         noise_patches(rows, patches) * (outputs.noise_shared ? rows.images : 1));
  }
  return error;
}

}  // namespace

int64_t backward_workspace(Element element, Rows rows, bool aligned, const BackwardOutputs& outputs) {
  const int64_t vector = element == Element::float64 ? 2 : element == Element::float32 ? 4 : 8;
  const Patches patches = patches_of(rows, wide_rows(element, rows, aligned) ? vector : 1);
  const int64_t wanted = (outputs.ddemodulation != nullptr) + (outputs.dbias != nullptr) +
                         (outputs.dnext_styles != nullptr);
  return wanted * rows.images * rows.channels * channel_patches(rows, patches) +
         (outputs.dnoise ? noise_patches(rows, patches) * rows.images * rows.pixels : 0);
}

const char* epilogue_backward(Element element, const void* dy, const void* dscaled, const void* x, const void* y,
                              const void* demodulation, const void* next_styles, BackwardOutputs outputs, Rows rows,
                              ActivationNumbers activation, bool aligned, void* workspace, void* stream) {
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulate_t<T>;
    BackwardData<T> data{static_cast<const T*>(dy),
                         static_cast<const T*>(dscaled),
                         static_cast<const T*>(x),
                         static_cast<const T*>(y),
                         static_cast<const A*>(demodulation),
                         static_cast<const A*>(next_styles),
                         static_cast<T*>(outputs.dx),
                         nullptr,
                         nullptr,
                         nullptr,
                         nullptr,
                         rows.images,
                         rows.channels,
                         rows.pixels};
    A* const work = static_cast<A*>(workspace);
    return wide_rows(element, rows, aligned)
               ? launch<T, kVector<T>>(data, outputs, rows, activation, work, stream)
               : launch<T, 1>(data, outputs, rows, activation, work, stream);
  });
}

}  // namespace speak::cuda
