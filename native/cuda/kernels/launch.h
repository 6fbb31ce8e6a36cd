#pragma once

// What kernels need from the compiler that builds them: nvcc, or a host compiler with the harness of native/test. Only .cu
// files include this.
#if defined(__CUDACC__)
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <utility>
#else
#include <algorithm>
#include <string>
#include <tuple>

#include "test/simt.h"
#endif

#include "arguments.h"
#include "runtime/errors.h"
#if defined(__CUDACC__)
#include "cuda/gpu/status.h"
#endif

// A static array in shared memory: SHARED(float, sums, 32).
// The dynamic shared memory, for the one type a kernel uses: DYNAMIC_SHARED(float, values).
// Whether the device code being compiled may use thread-block clusters.
#if defined(__CUDACC__)
#define SHARED(type, name, count) __shared__ alignas(16) type name[count]
#define DYNAMIC_SHARED(type, name)                               \
  extern __shared__ __align__(16) unsigned char dynamicShared[]; \
  type* name = reinterpret_cast<type*>(dynamicShared)
#define HAS_CLUSTERS (__CUDA_ARCH__ >= 900)
#else
#define SHARED(type, name, count) \
  type* name = static_cast<type*>(simt::sharedArray(sizeof(type) * (count), alignof(type), simt::Where::current()))
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(simt::dynamicShared(16))
#define HAS_CLUSTERS 1
#endif

namespace seresnet::cuda {

// What launch configurations are computed from.
struct Limits {
  int capability;               // 90 is sm_90
  int processors;               // streaming multiprocessors
  int threadsPerProcessor;
  int64_t sharedPerBlock;       // bytes of dynamic shared memory that a block may ask for
  int64_t sharedPerProcessor;
  int64_t reservedPerBlock;     // of which the system keeps so much for each block
};

struct Shape3 {
  dim3 grid, block;
  size_t shared = 0;     // bytes of dynamic shared memory
  unsigned cluster = 1;  // blocks along x that share a cluster
};

#if defined(__CUDACC__)

inline Limits limits() {
  int device = 0;
  check("cudaGetDevice", cudaGetDevice(&device));
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    check("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&value, which, device));
    return value;
  };
  return {attribute(cudaDevAttrComputeCapabilityMajor) * 10 + attribute(cudaDevAttrComputeCapabilityMinor),
          attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrMaxThreadsPerMultiProcessor),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
          attribute(cudaDevAttrReservedSharedMemoryPerBlock)};
}

template <typename... Parameters, typename... Given>
void launch(const char* name, Stream stream, const Shape3& shape, void (*kernel)(Parameters...), Given&&... given) {
  constexpr size_t withoutAsking = 48 * 1024;
  if (shape.shared > withoutAsking)
    check(name, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shape.shared)));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = shape.cluster;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  check(name, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Given>(given))...));
}

#else

inline Limits limits() {
  const simt::Device& device = simt::device();
  return {device.capability, device.processors, device.threadsPerProcessor,
          static_cast<int64_t>(device.sharedPerBlock), static_cast<int64_t>(device.sharedPerProcessor),
          static_cast<int64_t>(device.reservedPerBlock)};
}

// The arguments are copied, as on a device: a stream may run the kernel when the caller is long gone.
template <typename... Parameters, typename... Given>
void launch(const char* name, Stream stream, const Shape3& shape, void (*kernel)(Parameters...), const Given&... given) {
  simt::launch(stream, {name, shape.grid, shape.block, shape.shared, shape.cluster},
               [kernel, arguments = std::tuple<Parameters...>(static_cast<Parameters>(given)...)] {
                 std::apply(kernel, arguments);
               });
}

#endif

constexpr int64_t divideUp(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Blocks along one dim of a grid. Throws where no grid is that large.
inline unsigned blocks(const char* name, int64_t count, int64_t most = 0x7fffffff) {
  if (count < 1 || count > most)
    throw Error(name, "expected 1 to " + std::to_string(most) + " blocks, got " + std::to_string(count));
  return static_cast<unsigned>(count);
}

// How many blocks of `threads` threads the device holds at once.
inline int64_t residentBlocks(int threads) {
  const Limits limit = limits();
  return int64_t{limit.processors} * std::max(limit.threadsPerProcessor / threads, 1);
}

// For kernels whose threads step through `work` elements in strides: enough blocks to fill the device twice, which evens
// out its tail.
inline unsigned stridedBlocks(int64_t work, int threads) {
  return static_cast<unsigned>(std::clamp<int64_t>(divideUp(work, threads), 1, 2 * residentBlocks(threads)));
}

template <typename T>
struct TypeTag {
  using Type = T;
};

// Calls `use` with a tag of the type that stores a float dtype.
template <typename Use>
void withFloat(const char* name, DType dtype, Use use) {
  switch (dtype) {
    case DType::float32:
      return use(TypeTag<float>{});
    case DType::float16:
      return use(TypeTag<__half>{});
    case DType::bfloat16:
      return use(TypeTag<__nv_bfloat16>{});
    default:
      throw Error(name, std::string("expected a float dtype, got ") + nameOf(dtype), Error::dtype);
  }
}

// Calls `use` with a tag of the type that stores any dtype.
template <typename Use>
void withAny(const char* name, DType dtype, Use use) {
  switch (dtype) {
    case DType::int32:
      return use(TypeTag<int32_t>{});
    case DType::int64:
      return use(TypeTag<int64_t>{});
    case DType::uint8:
      return use(TypeTag<uint8_t>{});
    default:
      return withFloat(name, dtype, use);
  }
}

// Whether 16 bytes at a time can be moved from and to all of these, null pointers aside.
template <typename... Pointers>
bool aligned(Pointers... pointers) {
  return (... && (reinterpret_cast<uintptr_t>(pointers) % 16 == 0));
}

}  // namespace seresnet::cuda
