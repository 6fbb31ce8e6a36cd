#include "gpu.h"

#include <cuda_runtime_api.h>

#include "../runtime/errors.h"

namespace seresnet::cuda::gpu {

namespace {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what it said is in the exception now
  throw Error(call, std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status));
}

class CapturedGraph final : public Graph {
 public:
  explicit CapturedGraph(cudaGraph_t graph) {
    const cudaError_t status = cudaGraphInstantiate(&instance_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }
  ~CapturedGraph() override { cudaGraphExecDestroy(instance_); }

  void launch(Stream stream) override { check(cudaGraphLaunch(instance_, stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t instance_ = nullptr;
};

}  // namespace

int count() {
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  return devices;
}

Properties properties(int device) {
  cudaDeviceProp all;
  check(cudaGetDeviceProperties(&all, device), "cudaGetDeviceProperties");
  Properties some{all.name, all.major, all.minor, all.totalGlobalMem};
  check(cudaRuntimeGetVersion(&some.runtime), "cudaRuntimeGetVersion");
  check(cudaDriverGetVersion(&some.driver), "cudaDriverGetVersion");
  return some;
}

void use(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

void* allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMalloc");
  return memory;
}

void free(void* memory) noexcept { cudaFree(memory); }

void* allocatePinned(size_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return memory;
}

void freePinned(void* memory) noexcept { cudaFreeHost(memory); }

std::shared_ptr<CUstream_st> makeStream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return {stream, [](cudaStream_t last) { cudaStreamDestroy(last); }};
}

std::shared_ptr<CUevent_st> makeEvent(bool timing) {
  cudaEvent_t event = nullptr;
  const unsigned flags = timing ? cudaEventDefault : cudaEventBlockingSync | cudaEventDisableTiming;
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  return {event, [](cudaEvent_t last) { cudaEventDestroy(last); }};
}

void record(Event event, Stream stream) { check(cudaEventRecord(event, stream), "cudaEventRecord"); }

void wait(Stream stream, Event event) { check(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent"); }

void synchronize(Event event) { check(cudaEventSynchronize(event), "cudaEventSynchronize"); }

void synchronize(Stream stream) { check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }

float milliseconds(Event from, Event to) {
  float time = 0;
  check(cudaEventElapsedTime(&time, from, to), "cudaEventElapsedTime");
  return time;
}

void copyToDevice(Stream stream, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync to the device");
}

void copyToHost(Stream stream, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync to the host");
}

void copyOnDevice(Stream stream, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync on the device");
}

void clear(Stream stream, void* memory, size_t bytes) {
  check(cudaMemsetAsync(memory, 0, bytes, stream), "cudaMemsetAsync");
}

std::unique_ptr<Graph> capture(Stream stream, std::function<void()> work) {
  // other threads go on allocating and loading
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  return std::make_unique<CapturedGraph>(graph);
}

}  // namespace seresnet::cuda::gpu
