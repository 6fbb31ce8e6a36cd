#include "../cuda/gpu.h"

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "../runtime/errors.h"
#include "simt.h"

// The small GPU interface on the host, for the device "cuda-sim": whatever is put into a stream is done at once, on the
// thread that puts it there; recorded work is done when the graph is launched. Device memory lies between guard zones that
// are looked at after each kernel, and is filled with NaNs.

struct CUevent_st {
  std::chrono::steady_clock::time_point at;
};

struct CUstream_st {};

namespace seresnet::cuda::gpu {

namespace {

class HostGraph final : public Graph {
 public:
  explicit HostGraph(std::function<void()> work) : work_(std::move(work)) {}
  void launch(Stream) override { work_(); }

 private:
  std::function<void()> work_;
};

constexpr size_t memory = size_t{4} << 30;

// SERESNET_SIM_CAPABILITY=75 makes it a card of compute capability 7.5, for what the executor refuses there.
int capability() {
  const char* asked = std::getenv("SERESNET_SIM_CAPABILITY");
  return asked == nullptr ? 90 : std::atoi(asked);
}

}  // namespace

int count() { return 1; }

Properties properties(int) { return {"kernels run on the host", capability() / 10, capability() % 10, memory, 0, 0}; }

void use(int) {}

void* allocate(size_t bytes) { return bytes > memory ? nullptr : simt::allocate(bytes); }

void free(void* pointer) noexcept { simt::release(pointer); }

void* allocatePinned(size_t bytes) {
  void* pointer = std::malloc(bytes);
  if (pointer == nullptr) throw Error("cudaMallocHost", "out of memory", Error::memory);
  return pointer;
}

void freePinned(void* pointer) noexcept { std::free(pointer); }

std::shared_ptr<CUstream_st> makeStream() { return std::make_shared<CUstream_st>(); }

std::shared_ptr<CUevent_st> makeEvent(bool) { return std::make_shared<CUevent_st>(); }

void record(Event event, Stream) { event->at = std::chrono::steady_clock::now(); }

void wait(Stream, Event) {}

void synchronize(Event) {}

void synchronize(Stream) {}

float milliseconds(Event from, Event to) { return std::chrono::duration<float, std::milli>(to->at - from->at).count(); }

void copyToDevice(Stream, void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void copyToHost(Stream, void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void copyOnDevice(Stream, void* to, const void* from, size_t bytes) { std::memmove(to, from, bytes); }

void clear(Stream, void* pointer, size_t bytes) { std::memset(pointer, 0, bytes); }

std::unique_ptr<Graph> capture(Stream, std::function<void()> work) { return std::make_unique<HostGraph>(std::move(work)); }

}  // namespace seresnet::cuda::gpu
