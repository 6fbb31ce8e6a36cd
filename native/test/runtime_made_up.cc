#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "cuda/gpu/gpu.h"
#include "cuda/kernels/elementwise.h"

// What native/cuda makes of a CUDA runtime that fails: the few functions of it that are called here, made up, fail one after
// the other, and none may leave its failure behind as the "last error" for somebody else. Needs CUDA's headers and the objects
// of an addon that nvcc compiled, and neither a GPU nor a driver. Run by test/cuda_runtime.test.ts.

namespace {

cudaError_t last = cudaSuccess;
std::string failing;  // the function that fails, "" for none
int graphs = 0, instances = 0;

cudaError_t answer(const char* function, cudaError_t failure = cudaErrorInvalidValue) {
  if (failing != function) return cudaSuccess;
  return last = failure;
}

void* pretend(int address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }

}  // namespace

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t failure = last;
  last = cudaSuccess;
  return failure;
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorMadeUp"; }
const char* cudaGetErrorString(cudaError_t) { return "made up"; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, answer("cudaGetDeviceCount"); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int) { return answer("cudaGetDeviceProperties"); }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, answer("cudaRuntimeGetVersion"); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, answer("cudaDriverGetVersion"); }
cudaError_t cudaSetDevice(int) { return answer("cudaSetDevice"); }
cudaError_t cudaGetDevice(int* device) { return *device = 0, answer("cudaGetDevice"); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 64, answer("cudaDeviceGetAttribute"); }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return answer("cudaFuncSetAttribute"); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return answer("cudaLaunchKernelExC"); }
cudaError_t cudaMalloc(void** memory, size_t) { return *memory = pretend(256), answer("cudaMalloc", cudaErrorMemoryAllocation); }
cudaError_t cudaFree(void*) { return answer("cudaFree"); }
cudaError_t cudaMallocHost(void** memory, size_t) { return *memory = pretend(512), answer("cudaMallocHost"); }
cudaError_t cudaFreeHost(void*) { return answer("cudaFreeHost"); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = static_cast<cudaStream_t>(pretend(1)), answer("cudaStreamCreateWithFlags");
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return answer("cudaStreamDestroy"); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = static_cast<cudaEvent_t>(pretend(2)), answer("cudaEventCreateWithFlags");
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return answer("cudaEventDestroy"); }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return answer("cudaEventRecord"); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return answer("cudaStreamWaitEvent"); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return answer("cudaEventSynchronize"); }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return answer("cudaStreamSynchronize"); }
cudaError_t cudaEventElapsedTime(float* time, cudaEvent_t, cudaEvent_t) { return *time = 1, answer("cudaEventElapsedTime"); }
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) { return answer("cudaMemcpyAsync"); }
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return answer("cudaMemsetAsync"); }
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return answer("cudaStreamBeginCapture"); }
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  const cudaError_t status = answer("cudaStreamEndCapture");
  *graph = status == cudaSuccess ? static_cast<cudaGraph_t>(pretend(3)) : nullptr;  // as the real one
  graphs += status == cudaSuccess;
  return status;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (graph == nullptr) return last = cudaErrorInvalidValue;
  --graphs;
  return answer("cudaGraphDestroy");
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t, unsigned long long) {
  const cudaError_t status = answer("cudaGraphInstantiate");
  *instance = status == cudaSuccess ? static_cast<cudaGraphExec_t>(pretend(4)) : nullptr;
  instances += status == cudaSuccess;
  return status;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
  if (instance == nullptr) return last = cudaErrorInvalidValue;
  --instances;
  return answer("cudaGraphExecDestroy");
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return answer("cudaGraphUpload"); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return answer("cudaGraphLaunch"); }

// What nvcc puts into objects.
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void*) { return *kernel = nullptr, cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return answer("cudaLaunchKernel"); }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return answer("cudaLaunchKernel"); }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, cudaStream_t) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
}

namespace {

using namespace seresnet;
using namespace seresnet::cuda;

// Everything the executor does with the runtime, once.
void everything() {
  gpu::count();
  gpu::properties(0);
  gpu::use(0);
  void* memory = gpu::allocate(256);
  gpu::free(memory);
  gpu::freePinned(gpu::allocatePinned(256));
  const auto stream = gpu::makeStream();
  const auto event = gpu::makeEvent(), other = gpu::makeEvent(true);
  gpu::record(event.get(), stream.get());
  gpu::wait(stream.get(), event.get());
  gpu::synchronize(event.get());
  gpu::synchronize(stream.get());
  gpu::milliseconds(event.get(), other.get());
  gpu::copyToDevice(stream.get(), memory, memory, 1);
  gpu::copyToHost(stream.get(), memory, memory, 1);
  gpu::copyOnDevice(stream.get(), memory, memory, 1);
  gpu::clear(stream.get(), memory, 1);
  launchFill(stream.get(), {memory, DType::float32, 1, 0});
  const auto graph = gpu::capture(stream.get(), [&] { gpu::clear(stream.get(), memory, 1); });
  graph->launch(stream.get());
}

// A capture whose work fails, where ending it fails as well.
void failedCapture() {
  const auto stream = gpu::makeStream();
  gpu::capture(stream.get(), [] { throw Error("work", "failed"); });
}

}  // namespace

int main(int count, char** words) {
  if (count == 3) failing = words[2];
  std::string said = "nothing";
  try {
    if (count > 1 && std::strcmp(words[1], "capture") == 0) failedCapture();
    else everything();
  } catch (const Error& error) {
    said = error.what();
  }
  std::printf("%s; last error %d, %d graphs, %d instances\n", said.c_str(), static_cast<int>(last), graphs, instances);
  return 0;
}
