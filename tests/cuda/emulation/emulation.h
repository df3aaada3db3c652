// CUDA on the CPU, for tests: the kernels' own sources compile against this and run thread by thread.
//
// A CUDA thread is a fiber; the fibers of one block take turns and change only at barriers, in an order the test
// chooses (forward, reversed, shuffled), so that a result that leans on an order shows. Checked while running: every
// thread reaches the same barrier, every lane the same warp operation, arrays are not overrun (the sources are
// compiled with -fsanitize=bounds-strict), wide accesses and matrix tiles are aligned, shared memory is never read
// before it is written (it starts as NaN) nor written beyond its ends. A fault ends the launch with a message.
// Nothing here tells how fast a kernel is.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

namespace emulation {

inline dim3 thread_index, block_index, block_size, grid_size;  // of the fiber that runs

[[noreturn]] void fault(const std::string& message);  // ends the launch
void block_barrier(int line);
void warp_barrier(int line);

// Runs every block; null, or what went wrong.
const char* launch(dim3 grid, dim3 block, const std::function<void()>& kernel);

// Faults that tests plant in copies of the sources are chosen while running; 0: none.
int planted();

// Which block is running, so that shared memory knows when it is new; and where its memory is registered.
uint64_t block_serial();
void fence(unsigned char* before, unsigned char* after);
constexpr int kFence = 64;

template <class Array>
struct Shared {
  alignas(64) unsigned char before[kFence];
  alignas(64) Array value;
  alignas(64) unsigned char after[kFence];
  uint64_t serial = 0;

  Array& enter() {
    if (serial != block_serial()) {
      serial = block_serial();
      memset(before, 0xA5, kFence);
      memset(static_cast<void*>(&value), 0xFF, sizeof(value));  // NaN in every format
      memset(after, 0xA5, kFence);
      fence(before, after);
    }
    return value;
  }
};

inline int lane() { return thread_index.x % 32; }

// What lanes show each other: room for a matrix fragment's eight numbers a lane.
struct Exchange {
  float a[256], b[256];
  uint64_t word[32];
};
Exchange& warp_exchange();

template <class T>
T shuffle_xor(unsigned mask, T value, int distance, int line) {
  static_assert(sizeof(T) <= 8);
  if (mask != 0xffffffffu) fault("a shuffle names only some lanes, in line " + std::to_string(line));
  if (distance < 0 || distance > 31) fault("a shuffle over " + std::to_string(distance) + " lanes");
  Exchange& exchange = warp_exchange();
  memcpy(&exchange.word[lane()], &value, sizeof(T));
  warp_barrier(line);
  memcpy(&value, &exchange.word[lane() ^ distance], sizeof(T));
  warp_barrier(line);
  return value;
}

}  // namespace emulation

template <class T>
void __stwb(T* to, T value) {
  *to = value;
}

#define threadIdx ::emulation::thread_index
#define blockIdx ::emulation::block_index
#define blockDim ::emulation::block_size
#define gridDim ::emulation::grid_size
#define __syncthreads() ::emulation::block_barrier(__LINE__)
#define __syncwarp() ::emulation::warp_barrier(__LINE__)
#define __shfl_xor_sync(mask, value, distance) ::emulation::shuffle_xor(mask, value, distance, __LINE__)

#define SPEAK_SHARED(type, name, dimensions)                    \
  static ::emulation::Shared<type dimensions> name##_in_shared; \
  auto& name = name##_in_shared.enter()
#define SPEAK_LAUNCH(kernel, grid, block, stream, ...) \
  ((void)(stream), ::emulation::launch(grid, block, [=] { (*kernel)(__VA_ARGS__); }))

#include "half.h"
