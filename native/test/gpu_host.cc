#include "cuda/gpu/gpu.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "faults_host.h"
#include "runtime/errors.h"
#include "simt.h"
#include "streams_host.h"

// The small GPU interface on the host, for the device "cuda-sim". Device memory lies between guard zones that are looked at
// after each kernel, and is filled with NaNs.

namespace {

using seresnet::Error;
using seresnet::host::Work;

// What was put into a stream and is not done yet.
struct Queue {
  std::deque<Work> waiting;
  uint64_t added = 0, done = 0;
};

// What was recorded of a stream.
struct Recording {
  std::vector<Work> work;
  std::string refused;  // why it cannot be used
};

struct Moment {
  std::chrono::steady_clock::time_point at;
};

}  // namespace

// The queue and the moment live on in what was put into streams.
struct CUstream_st {
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  std::unique_ptr<Recording> recording;

  CUstream_st();
  ~CUstream_st();
};

struct CUevent_st {
  std::shared_ptr<Queue> queue;  // where it was recorded, after so many pieces of work
  uint64_t position = 0;
  std::shared_ptr<Moment> moment = std::make_shared<Moment>();
};

namespace {

// The whole device, of which one piece of work is done at a time.
struct Host {
  std::recursive_mutex mutex;
  std::set<CUstream_st*> streams;
  std::map<void*, size_t> memory, pinned;
  size_t memoryTaken = 0, pinnedTaken = 0;
  std::string lost;  // why every call fails
};

Host& host() {
  static Host* all = new Host;  // threads may still use it when the process ends
  return *all;
}

using Lock = std::lock_guard<std::recursive_mutex>;

// The stream whose work this thread records, in which it must not do what a device does not.
thread_local CUstream_st* recorded = nullptr;

void expectAlive(const char* call) {
  if (!host().lost.empty()) throw Error(call, host().lost);
}

void refuseInCapture(const char* call) {
  if (recorded == nullptr) return;
  recorded->recording->refused = "cudaErrorStreamCaptureInvalidated: " + std::string(call) + " was called meanwhile";
  throw Error(call, "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing");
}

void runUntil(Queue& queue, uint64_t position) {
  while (queue.done < position && host().lost.empty()) {
    const Work next = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    ++queue.done;  // before it is done, lest it wait for itself
    next();
  }
}

void finishAll() {
  for (CUstream_st* stream : host().streams) runUntil(*stream->queue, stream->queue->added);
}

void add(CUstream_st* stream, Work work) {
  if (stream->recording) {
    stream->recording->work.push_back(std::move(work));
    return;
  }
  stream->queue->waiting.push_back(std::move(work));
  ++stream->queue->added;
}

// As an ordinary call that puts work into a stream.
void call(const char* name, CUstream_st* stream, Work work) {
  const Lock lock(host().mutex);
  expectAlive(name);
  add(stream, std::move(work));
}

void* take(const char* what, std::map<void*, size_t>& pieces, size_t& taken, size_t bytes, size_t limit) {
  if (bytes > limit || taken > limit - bytes) return nullptr;
  void* pointer = std::strcmp(what, "memory") == 0 ? simt::allocate(bytes) : std::malloc(bytes);
  if (pointer == nullptr) return nullptr;
  pieces.emplace(pointer, bytes);
  taken += bytes;
  return pointer;
}

void giveBack(std::map<void*, size_t>& pieces, size_t& taken, void* pointer) {
  const auto found = pieces.find(pointer);
  if (found == pieces.end()) return;
  taken -= found->second;
  pieces.erase(found);
}

void launchInto(CUstream_st* stream, const simt::Launch& launch, std::function<void()> body) {
  if (seresnet::host::fails("launch", launch.kernel))
    throw Error(launch.kernel, "cudaErrorLaunchOutOfResources: too many resources requested for launch");
  seresnet::host::enqueue(stream, launch.kernel, [launch, body = std::move(body)] { simt::run(launch, body); });
}

const bool queued = (simt::setQueue(launchInto), true);

}  // namespace

CUstream_st::CUstream_st() {
  const Lock lock(host().mutex);
  host().streams.insert(this);
}

CUstream_st::~CUstream_st() {
  const Lock lock(host().mutex);
  runUntil(*queue, queue->added);  // a device's goes on by itself
  host().streams.erase(this);
}

namespace seresnet::host {

void lose(const std::string& why) { ::host().lost = why; }

void enqueue(cuda::gpu::Stream stream, const std::string& name, Work work) {
  call(name.c_str(), stream, [name, work = std::move(work)] {
    if (fails("kernel", name)) lose("cudaErrorIllegalAddress: an illegal memory access was encountered");
    else work();
  });
}

}  // namespace seresnet::host

namespace seresnet::cuda::gpu {

namespace {

class HostGraph final : public Graph {
 public:
  explicit HostGraph(std::vector<Work> work) : work_(std::make_shared<std::vector<Work>>(std::move(work))) {}

  void launch(Stream stream) override {
    call("cudaGraphLaunch", stream, [work = work_] {
      for (const Work& each : *work)
        if (::host().lost.empty()) each();
    });
  }

 private:
  std::shared_ptr<std::vector<Work>> work_;
};

constexpr size_t memoryOfCard = size_t{4} << 30;

// SERESNET_SIM_CAPABILITY=75 makes it a card of compute capability 7.5, for what the executor refuses there.
int capability() {
  const char* asked = std::getenv("SERESNET_SIM_CAPABILITY");
  return asked == nullptr ? 90 : std::atoi(asked);
}

void finish(const char* name, Queue& queue, uint64_t position) {
  const Lock lock(::host().mutex);
  expectAlive(name);
  refuseInCapture(name);
  runUntil(queue, position);
  expectAlive(name);
}

}  // namespace

int count() { return 1; }

Properties properties(int) {
  return {"kernels run on the host", capability() / 10, capability() % 10, memoryOfCard, 0, 0};
}

void use(int) {
  const Lock lock(::host().mutex);
  expectAlive("cudaSetDevice");
}

void* allocate(size_t bytes) {
  Host& all = ::host();
  const Lock lock(all.mutex);
  expectAlive("cudaMalloc");
  refuseInCapture("cudaMalloc");
  return take("memory", all.memory, all.memoryTaken, bytes, host::limitOf("memory", memoryOfCard));
}

// As cudaFree, it waits for the device first.
void free(void* pointer) noexcept {
  Host& all = ::host();
  const Lock lock(all.mutex);
  finishAll();
  giveBack(all.memory, all.memoryTaken, pointer);
  simt::release(pointer);
}

void* allocatePinned(size_t bytes) {
  Host& all = ::host();
  const Lock lock(all.mutex);
  expectAlive("cudaMallocHost");
  refuseInCapture("cudaMallocHost");
  void* pointer = take("pinned", all.pinned, all.pinnedTaken, bytes, host::limitOf("pinned", memoryOfCard));
  if (pointer == nullptr) throw Error("cudaMallocHost", "cudaErrorMemoryAllocation: out of memory", Error::memory);
  return pointer;
}

void freePinned(void* pointer) noexcept {
  Host& all = ::host();
  const Lock lock(all.mutex);
  finishAll();
  giveBack(all.pinned, all.pinnedTaken, pointer);
  std::free(pointer);
}

std::shared_ptr<CUstream_st> makeStream() {
  const Lock lock(::host().mutex);
  expectAlive("cudaStreamCreateWithFlags");
  return std::make_shared<CUstream_st>();
}

std::shared_ptr<CUevent_st> makeEvent(bool) {
  const Lock lock(::host().mutex);
  expectAlive("cudaEventCreateWithFlags");
  return std::make_shared<CUevent_st>();
}

void record(Event event, Stream stream) {
  const Lock lock(::host().mutex);
  call("cudaEventRecord", stream, [moment = event->moment] { moment->at = std::chrono::steady_clock::now(); });
  event->queue = stream->queue;
  event->position = stream->queue->added;
}

void wait(Stream stream, Event event) {
  const Lock lock(::host().mutex);
  call("cudaStreamWaitEvent", stream, [queue = event->queue, position = event->position] {
    if (queue) runUntil(*queue, position);
  });
}

void synchronize(Event event) {
  if (event->queue) finish("cudaEventSynchronize", *event->queue, event->position);
}

void synchronize(Stream stream) { finish("cudaStreamSynchronize", *stream->queue, stream->queue->added); }

float milliseconds(Event from, Event to) {
  const Lock lock(::host().mutex);
  expectAlive("cudaEventElapsedTime");
  return std::chrono::duration<float, std::milli>(to->moment->at - from->moment->at).count();
}

void copyToDevice(Stream stream, void* to, const void* from, size_t bytes) {
  call("cudaMemcpyAsync to the device", stream, [=] { std::memcpy(to, from, bytes); });
}

void copyToHost(Stream stream, void* to, const void* from, size_t bytes) {
  call("cudaMemcpyAsync to the host", stream, [=] { std::memcpy(to, from, bytes); });
}

void copyOnDevice(Stream stream, void* to, const void* from, size_t bytes) {
  call("cudaMemcpyAsync on the device", stream, [=] { std::memmove(to, from, bytes); });
}

void clear(Stream stream, void* pointer, size_t bytes) {
  call("cudaMemsetAsync", stream, [=] { std::memset(pointer, 0, bytes); });
}

std::unique_ptr<Graph> capture(Stream stream, const std::function<void()>& work) {
  {
    const Lock lock(::host().mutex);
    expectAlive("cudaStreamBeginCapture");
    stream->recording = std::make_unique<Recording>();
  }
  recorded = stream;
  const auto end = [&] {
    const Lock lock(::host().mutex);
    recorded = nullptr;
    return std::move(stream->recording);
  };
  try {
    work();
  } catch (...) {
    end();
    throw;
  }
  const std::unique_ptr<Recording> made = end();
  if (host::fails("capture")) made->refused = "cudaErrorStreamCaptureInvalidated: as SERESNET_SIM_FAULT wants it";
  if (!made->refused.empty()) throw Error("cudaStreamEndCapture", made->refused);
  if (host::fails("graph")) throw Error("cudaGraphInstantiate", "cudaErrorMemoryAllocation: out of memory", Error::memory);
  return std::make_unique<HostGraph>(std::move(made->work));
}

}  // namespace seresnet::cuda::gpu
