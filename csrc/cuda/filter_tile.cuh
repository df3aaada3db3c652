// A tile of an image in shared memory and the small filters that slide over it: what upfirdn2d and the blurring
// epilogue have in common for planar data.
#pragma once
#include "scalar.cuh"

namespace speak::cuda {

constexpr int kTileThreads = 128;

// Each thread makes ROWS x 4 outputs. WIDTH outputs make a row of a block's tile; its threads stack up to HEIGHT.
template <int UP, int DOWN, int TAPS, int WIDTH, int ROWS>
struct Tile {
  static constexpr int columns = 4;
  static constexpr int width = WIDTH, threads_across = WIDTH / columns;
  static constexpr int height = kTileThreads / threads_across * ROWS;
  // How many inputs a span of outputs looks at. Spans start where the zero-stuffed image has a pixel.
  static constexpr int inputs(int outputs) { return ((outputs - 1) * DOWN + TAPS - 1) / UP + 1; }
  static constexpr int rows_in = inputs(height), columns_in = inputs(WIDTH);
  static constexpr int stride = (columns_in + 3) / 4 * 4;  // rows start on 128-bit boundaries
  static constexpr int thread_rows_in = inputs(ROWS), thread_columns_in = inputs(columns);
  static constexpr int row_step = ROWS * DOWN / UP, column_step = columns * DOWN / UP;  // from thread to thread
  static_assert(ROWS * DOWN % UP == 0 && columns * DOWN % UP == 0, "every thread must start at the same phase");
};

// Copies the tile whose first input is (y0, x0) from a plane, with zeros for what lies outside. A warp takes a row:
// rows of odd length (an upsampled image is 2H+1 wide) have no 128-bit boundaries to load from.
template <class G, class T, class A>
SPEAK_DEVICE void load_tile(const T* __restrict__ plane, int height, int width, int y0, int x0,
                            A (&tile)[G::rows_in][G::stride]) {
  const int lane = threadIdx.x % 32;
  for (int row = threadIdx.x / 32; row < G::rows_in; row += kTileThreads / 32) {
    const int y = y0 + row;
    const bool inside = y >= 0 && y < height;
    const T* const line = plane + int64_t(inside ? y : 0) * width;
#pragma unroll
    for (int column = lane; column < (G::stride + 31) / 32 * 32; column += 32) {
      const int x = x0 + column;
      if (column < G::stride) tile[row][column] = inside && x >= 0 && x < width ? widen(line[x]) : A(0);
    }
  }
}

// One row of what a thread looks at, in accesses as wide as its place in the tile allows.
template <class G, class A>
SPEAK_DEVICE void read_row(const A (&row)[G::stride], int first, A (&to)[(G::thread_columns_in + 3) / 4 * 4]) {
  constexpr int group = G::column_step % 4 == 0 && sizeof(A) == 4 ? 4 : 2;
#pragma unroll
  for (int i = 0; i < (G::thread_columns_in + group - 1) / group * group; i += group) {
    A part[group];
    load<group>(&row[first + i], part);
#pragma unroll
    for (int k = 0; k < group; ++k) to[i + k] = part[k];
  }
}

}  // namespace speak::cuda
