#include "gpu.h"

#include "status.h"

namespace seresnet::cuda::gpu {

namespace {

class CapturedGraph final : public Graph {
 public:
  // Brings the graph to the device at once: what fails then fails here, and no launch has to.
  CapturedGraph(cudaGraph_t graph, Stream stream) {
    cudaGraphExec_t instance = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&instance, graph, 0);
    forget(cudaGraphDestroy(graph));
    check("cudaGraphInstantiate", status);
    instance_ = {instance, [](cudaGraphExec_t last) { forget(cudaGraphExecDestroy(last)); }};
    check("cudaGraphUpload", cudaGraphUpload(instance, stream));
  }

  void launch(Stream stream) override { check("cudaGraphLaunch", cudaGraphLaunch(instance_.get(), stream)); }

 private:
  std::shared_ptr<CUgraphExec_st> instance_;
};

}  // namespace

int count() {
  int devices = 0;
  check("cudaGetDeviceCount", cudaGetDeviceCount(&devices));
  return devices;
}

Properties properties(int device) {
  cudaDeviceProp all;
  check("cudaGetDeviceProperties", cudaGetDeviceProperties(&all, device));
  Properties some{all.name, all.major, all.minor, all.totalGlobalMem};
  check("cudaRuntimeGetVersion", cudaRuntimeGetVersion(&some.runtime));
  check("cudaDriverGetVersion", cudaDriverGetVersion(&some.driver));
  return some;
}

void use(int device) { check("cudaSetDevice", cudaSetDevice(device)); }

void* allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  forget(status);
  if (status == cudaErrorMemoryAllocation) return nullptr;
  check("cudaMalloc", status);
  return memory;
}

void free(void* memory) noexcept { forget(cudaFree(memory)); }

void* allocatePinned(size_t bytes) {
  void* memory = nullptr;
  check("cudaMallocHost", cudaMallocHost(&memory, bytes));
  return memory;
}

void freePinned(void* memory) noexcept { forget(cudaFreeHost(memory)); }

std::shared_ptr<CUstream_st> makeStream() {
  cudaStream_t stream = nullptr;
  check("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return {stream, [](cudaStream_t last) { forget(cudaStreamDestroy(last)); }};
}

std::shared_ptr<CUevent_st> makeEvent(bool timing) {
  cudaEvent_t event = nullptr;
  const unsigned flags = timing ? cudaEventDefault : cudaEventBlockingSync | cudaEventDisableTiming;
  check("cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, flags));
  return {event, [](cudaEvent_t last) { forget(cudaEventDestroy(last)); }};
}

void record(Event event, Stream stream) { check("cudaEventRecord", cudaEventRecord(event, stream)); }

void wait(Stream stream, Event event) { check("cudaStreamWaitEvent", cudaStreamWaitEvent(stream, event, 0)); }

void synchronize(Event event) { check("cudaEventSynchronize", cudaEventSynchronize(event)); }

void synchronize(Stream stream) { check("cudaStreamSynchronize", cudaStreamSynchronize(stream)); }

float milliseconds(Event from, Event to) {
  float time = 0;
  check("cudaEventElapsedTime", cudaEventElapsedTime(&time, from, to));
  return time;
}

void copyToDevice(Stream stream, void* to, const void* from, size_t bytes) {
  check("cudaMemcpyAsync to the device", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}

void copyToHost(Stream stream, void* to, const void* from, size_t bytes) {
  check("cudaMemcpyAsync to the host", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
}

void copyOnDevice(Stream stream, void* to, const void* from, size_t bytes) {
  check("cudaMemcpyAsync on the device", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}

void clear(Stream stream, void* memory, size_t bytes) {
  check("cudaMemsetAsync", cudaMemsetAsync(memory, 0, bytes, stream));
}

std::unique_ptr<Graph> capture(Stream stream, const std::function<void()>& work) {
  // other threads go on allocating and loading
  check("cudaStreamBeginCapture", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    forget(cudaStreamEndCapture(stream, &graph));  // whatever made the work fail is what is told
    if (graph != nullptr) forget(cudaGraphDestroy(graph));
    throw;
  }
  check("cudaStreamEndCapture", cudaStreamEndCapture(stream, &graph));
  return std::make_unique<CapturedGraph>(graph, stream);
}

}  // namespace seresnet::cuda::gpu
