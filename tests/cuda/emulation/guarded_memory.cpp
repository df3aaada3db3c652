// Memory for torch's CPU tensors in which nothing may be touched beyond a tensor's end: each ends before a page that
// cannot be read or written (up to 15 bytes early, to start on 128 bits), and starts as NaN.
#include <c10/core/CPUAllocator.h>
#include <signal.h>
#include <sys/mman.h>

extern "C" bool emulation_running();
extern "C" void emulation_fault(const char* message);

namespace {

constexpr size_t kPage = 4096;

struct Mapping {
  void* start;
  size_t size;
};

void release(void* held) {
  auto* mapping = static_cast<Mapping*>(held);
  munmap(mapping->start, mapping->size);
  delete mapping;
}

struct GuardedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const size_t wanted = (bytes + 15) / 16 * 16, pages = (wanted + kPage - 1) / kPage * kPage;
    void* start = mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(start != MAP_FAILED, "guarded memory: mmap failed");
    memset(start, 0xFF, pages);
    mprotect(static_cast<char*>(start) + pages, kPage, PROT_NONE);
    return {static_cast<char*>(start) + pages - wanted, new Mapping{start, pages + kPage}, &release, c10::kCPU};
  }
  void copy_data(void* to, const void* from, size_t count) const override { memcpy(to, from, count); }
};

GuardedAllocator guarded;
c10::Allocator* usual = nullptr;
struct sigaction usual_action;

void on_fault(int, siginfo_t*, void*) {
  if (emulation_running()) emulation_fault("memory beyond a tensor's end was touched");
  sigaction(SIGSEGV, &usual_action, nullptr);  // not ours: it happens again, and is handled as ever
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void emulation_guard_memory(bool on) {
  if (on && !usual) {
    usual = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&guarded, 255);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;  // the handler leaves by switching fibers
    sigaction(SIGSEGV, &action, &usual_action);
  } else if (!on && usual) {
    c10::SetCPUAllocator(usual, 255);
    sigaction(SIGSEGV, &usual_action, nullptr);
    usual = nullptr;
  }
}
