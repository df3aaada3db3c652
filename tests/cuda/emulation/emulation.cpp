// The emulator's engine: fibers, barriers, and the handlers that turn a fault into an error message.
#include "emulation.h"

#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#if defined(__x86_64__) && !defined(EMULATION_PORTABLE)
#define EMULATION_ASSEMBLY  // a switch between fibers in a dozen instructions; elsewhere it takes a system call
#else
#include <ucontext.h>
#endif

namespace emulation {
namespace {

enum class State { ready, at_warp_barrier, at_block_barrier, done };

constexpr size_t kStack = 64 * 1024;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  State state = State::done;
  int line = 0;  // of the barrier it waits at
#ifdef EMULATION_ASSEMBLY
  void* top = nullptr;
#else
  ucontext_t context;
#endif
};

std::vector<Fiber> fibers;
std::vector<Exchange> exchanges;
std::vector<std::pair<unsigned char*, unsigned char*>> fences;
const std::function<void()>* body;
size_t current;
uint64_t serial = 0;
int thread_order = 0;  // 0 forward, 1 reversed, 2 shuffled
int planted_fault = 0;
bool running = false;
std::string failure;
uint64_t launches = 0;

void run_body();

#ifdef EMULATION_ASSEMBLY
void* engine_top;
extern "C" void emulation_switch(void** save, void* to);
asm(R"(
.text
.type emulation_switch, @function
emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
void begin(Fiber& fiber) {
  auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(fiber.stack.get() + kStack) & ~uintptr_t(63));
  *--top = nullptr;  // the ABI wants 16-byte alignment at a call, one word of which a return address takes
  *--top = reinterpret_cast<void*>(&run_body);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.top = top;
}
void resume(Fiber& fiber) { emulation_switch(&engine_top, fiber.top); }
void suspend() { emulation_switch(&fibers[current].top, engine_top); }
#else
ucontext_t engine_context;
void begin(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  makecontext(&fiber.context, run_body, 0);
}
void resume(Fiber& fiber) { swapcontext(&engine_context, &fiber.context); }
void suspend() { swapcontext(&fibers[current].context, &engine_context); }
#endif

void run_body() {
  (*body)();
  fibers[current].state = State::done;
  for (;;) suspend();
}

void wait(State state, int line) {
  fibers[current].state = state;
  fibers[current].line = line;
  suspend();
}

// All of fibers [first, last) must wait in the same place; what: for the message.
void release(size_t first, size_t last, State state, const char* what) {
  size_t there = 0;
  int line = 0;
  bool same = true;
  for (size_t i = first; i < last; ++i)
    if (fibers[i].state == state) {
      same = same && (!there || fibers[i].line == line);
      line = fibers[i].line;
      ++there;
    }
  if (there != last - first || !same)
    throw std::runtime_error(std::string(what) + " in line " + std::to_string(line) + " reached by " +
                             std::to_string(there) + " of " + std::to_string(last - first) + " threads" +
                             (same ? "" : ", others at another one"));
  for (size_t i = first; i < last; ++i) fibers[i].state = State::ready;
}

std::vector<size_t> arranged(size_t count, std::mt19937& random) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t(0));
  if (thread_order == 1) std::reverse(order.begin(), order.end());
  if (thread_order == 2) std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Runs a warp until all its threads wait for the block, or are done: as far ahead of the other warps as it may get,
// so that a missing block barrier shows.
void run_warp(size_t first, std::mt19937& random) {
  for (;;) {
    for (size_t lane : arranged(32, random)) {
      if (fibers[first + lane].state != State::ready) continue;
      current = first + lane;
      thread_index = dim3(current, 0, 0);
      resume(fibers[current]);
      if (!failure.empty()) throw std::runtime_error(failure);
    }
    const auto begin = fibers.begin() + first;
    const auto waits = [](const Fiber& fiber) { return fiber.state == State::at_warp_barrier; };
    if (std::none_of(begin, begin + 32, waits)) return;
    release(first, first + 32, State::at_warp_barrier, "a warp operation");
  }
}

void run_block(size_t threads, std::mt19937& random) {
  ++serial;
  fences.clear();
  for (size_t i = 0; i < threads; ++i) {
    fibers[i].state = State::ready;
    begin(fibers[i]);
  }
  const auto waits = [](const Fiber& fiber) { return fiber.state == State::at_block_barrier; };
  for (;;) {
    for (size_t warp : arranged(threads / 32, random)) run_warp(warp * 32, random);
    if (std::none_of(fibers.begin(), fibers.begin() + threads, waits)) break;
    release(0, threads, State::at_block_barrier, "__syncthreads");
  }
  for (auto [before, after] : fences)
    for (int i = 0; i < kFence; ++i)
      if (before[i] != 0xA5 || after[i] != 0xA5) throw std::runtime_error("shared memory was written beyond its end");
}

}  // namespace

void fault(const std::string& message) {
  if (!running) {
    fprintf(stderr, "emulation: outside a kernel: %s\n", message.c_str());
    abort();
  }
  failure = message;
  for (;;) suspend();
}

void block_barrier(int line) { wait(State::at_block_barrier, line); }
void warp_barrier(int line) { wait(State::at_warp_barrier, line); }
int planted() { return planted_fault; }
uint64_t block_serial() { return serial; }
void fence(unsigned char* before, unsigned char* after) { fences.emplace_back(before, after); }
Exchange& warp_exchange() { return exchanges[current / 32]; }

const char* launch(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  static std::string message;
  const size_t threads = block.x;
  if (block.y != 1 || block.z != 1 || threads % 32 || threads > 1024 || !threads) return "a block of unusual size";
  if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    return "a grid that CUDA would refuse";
  while (fibers.size() < threads) fibers.emplace_back();
  exchanges.resize(std::max<size_t>(exchanges.size(), threads / 32));
  body = &kernel;
  block_size = block;
  grid_size = grid;
  failure.clear();
  running = true;
  ++launches;
  const char* error = nullptr;
  try {
    std::mt19937 random(7);
    for (size_t i : arranged(size_t(grid.x) * grid.y * grid.z, random)) {
      block_index = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
      run_block(threads, random);
    }
  } catch (const std::runtime_error& e) {
    message = e.what();
    error = message.c_str();
  }
  running = false;
  return error;
}

}  // namespace emulation

#define EXPORT __attribute__((visibility("default")))
extern "C" {
EXPORT void emulation_set_thread_order(int order) { emulation::thread_order = order; }
EXPORT void emulation_plant(int fault) { emulation::planted_fault = fault; }
EXPORT bool emulation_running() { return emulation::running; }
EXPORT void emulation_fault(const char* message) { emulation::fault(message); }
EXPORT uint64_t emulation_launches() { return emulation::launches; }

// What the compiler calls where -fsanitize finds a fault, in place of its own runtime.
struct SanitizerPlace {
  const char* file;
  uint32_t line, column;
};
void __ubsan_handle_out_of_bounds(const SanitizerPlace* place, void*) {
  emulation::fault("an array overrun in line " + std::to_string(place->line));
}
void __ubsan_handle_type_mismatch_v1(const SanitizerPlace* place, void*) {
  emulation::fault("a misaligned or null access in line " + std::to_string(place->line));
}

// torch's CUDA runtime, as far as the bindings ask for it: a device without a guard, the default stream.
int32_t emulated_create_device_guard(int32_t, void** guard) { return *guard = nullptr, 0; }
int32_t emulated_delete_device_guard(void*) { return 0; }
int32_t emulated_device_guard_set_index(void*, int32_t) { return 0; }
int32_t emulated_get_current_cuda_stream(int32_t, void** stream) { return *stream = nullptr, 0; }
}
