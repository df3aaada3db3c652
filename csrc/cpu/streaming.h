// Loops over all threads, and large results, which are written past the caches.
//
// A store reads the line that it writes to, and drives others out. A large result would be gone from the caches before
// anybody reads it: it is made in a block that stays near, and copied out with stores that go past them.
#pragma once
#include "scalar.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace speak::cpu {

constexpr int64_t kStreamedFrom = 16 << 20;  // bytes: about half the last cache of a processor of today

// Not of bfloat16, whose loops wait for arithmetic, not for memory.
template <class T> bool goes_past_caches(int64_t count) {
  return sizeof(T) >= 4 && count * static_cast<int64_t>(sizeof(T)) >= kStreamedFrom;
}

#if defined(__SSE2__)
// The lines of `to` that are not whole are written as usual.
inline void stream_out(void* to, const void* from, int64_t bytes) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<intptr_t>(out) & 63);
  std::memcpy(out, in, head);
  out += head, in += head, bytes -= head;
  for (; bytes >= 64; out += 64, in += 64, bytes -= 64)
    for (int64_t k = 0; k < 64; k += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + k)));
  std::memcpy(out, in, bytes);
}
inline void end_streams() { _mm_sfence(); }
#else
inline void stream_out(void* to, const void* from, int64_t bytes) { std::memcpy(to, from, bytes); }
inline void end_streams() {}
#endif

// make(where) writes `count` values to `to`, or, where they are streamed, to a block that is copied there. More than
// kRow values are written directly.
template <class T, class Make> void put_block(T* to, int64_t count, bool stream, const Make& make) {
  if (!stream || count > kRow) return make(to);
  alignas(64) T block[kRow];
  make(block);
  stream_out(to, block, count * sizeof(T));
}

// f(begin, end) over 0..count on all threads; tasks of at least 32k elements. What a task has streamed is there for
// other threads when it ends.
template <class F> void parallel(int64_t count, int64_t elements_each, F f) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_each));
  if (count <= 0) return;
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    f(begin, end);
    end_streams();
  });
}

}  // namespace speak::cpu
