#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <source_location>
#include <type_traits>

// Runs CUDA C++ kernels on the host: each CUDA thread is a fiber, a cluster's blocks run together, blocks one after
// another. Threads run from one barrier or warp operation to the next in an order that `order` seeds, so a missing barrier
// shows in some order. Whatever is undefined on a GPU and can be seen here ends the process with a report: threads that do
// not all reach a barrier or a warp operation, accesses outside shared memory or outside buffers of simt::allocate (under
// AddressSanitizer at once, else writes are found when the block or kernel ends), sizes that no device launches.
//
// Not modelled: the memory model between threads that run at once (fences do nothing), textures, tensor cores, time.

struct CUstream_st;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline constinit thread_local uint3 threadIdx{};
inline constinit thread_local uint3 blockIdx{};
inline constinit thread_local dim3 blockDim{};
inline constinit thread_local dim3 gridDim{};
constexpr int warpSize = 32;

namespace simt {

using Where = std::source_location;

// What the simulated device can do; tests change it to reach other paths. The default is an H200 with few processors.
struct Device {
  int capability = 90;
  int processors = 4;
  int threadsPerProcessor = 2048;
  size_t sharedPerBlock = 232448;
  size_t sharedPerProcessor = 233472;
  size_t reservedPerBlock = 1024;
};
Device& device();

// The order in which threads run: 0 ascending, 1 descending, others seed a new permutation at every barrier.
void setOrder(uint64_t order);

struct Launch {
  const char* kernel = "";
  dim3 grid, block;
  size_t shared = 0;     // bytes of dynamic shared memory
  unsigned cluster = 1;  // blocks along x
};
void run(const Launch& launch, const std::function<void()>& body);

// What a kernel's launch into a stream is: handed to the queue, where somebody has set one, else run at once.
using Queue = void (*)(CUstream_st* stream, const Launch& launch, std::function<void()> body);
void setQueue(Queue queue);
void launch(CUstream_st* stream, const Launch& launch, std::function<void()> body);

// What has run on this thread so far.
struct Counts {
  uint64_t kernels = 0, blocks = 0, threads = 0, switches = 0;
};
Counts counts();

// Global memory: aligned as cudaMalloc's, filled with NaNs, between guard zones that are looked at after each kernel.
void* allocate(size_t bytes);
void release(void* pointer);

// Prints one line with the place in the kernel and aborts.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void blockBarrier(Where where);
void clusterBarrier(Where where);

enum class Collective { shuffle, ballot, sync };
// Waits for the lanes of `mask`, then returns the value of lane `source`, or for a ballot the lanes whose value was not 0.
uint64_t exchange(Collective kind, uint32_t mask, uint64_t value, unsigned source, Where where);
unsigned lane();

// Shared memory of the running block: static arrays are told apart by where they are declared.
void* sharedArray(size_t bytes, size_t alignment, Where where);
void* dynamicShared(size_t alignment);
// The same address in the shared memory of another block of the cluster.
void* mapShared(const void* pointer, unsigned rank);
unsigned clusterRank();
unsigned clusterBlocks();

template <typename T>
T shuffle(uint32_t mask, T value, unsigned source, Where where) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(Collective::shuffle, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

template <typename T>
T min(T a, T b) {
  return std::min(a, b);
}
template <typename T>
T max(T a, T b) {
  return std::max(a, b);
}

// Barriers.
inline void __syncthreads(simt::Where where = simt::Where::current()) { simt::blockBarrier(where); }
inline void __syncwarp(uint32_t mask = 0xffffffffU, simt::Where where = simt::Where::current()) {
  simt::exchange(simt::Collective::sync, mask, 0, 0, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Shuffles: a lane that would read outside its segment of `width` lanes gets its own value.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned segment = simt::lane() & ~(static_cast<unsigned>(width) - 1);
  return simt::shuffle(mask, value, segment + (static_cast<unsigned>(source) & (static_cast<unsigned>(width) - 1)), where);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned inside = simt::lane() & (static_cast<unsigned>(width) - 1);
  return simt::shuffle(mask, value, inside < delta ? simt::lane() : simt::lane() - delta, where);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned inside = simt::lane() & (static_cast<unsigned>(width) - 1);
  return simt::shuffle(mask, value, inside + delta >= static_cast<unsigned>(width) ? simt::lane() : simt::lane() + delta,
                       where);
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int flip, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned source = simt::lane() ^ static_cast<unsigned>(flip);
  const unsigned segment = simt::lane() & ~(static_cast<unsigned>(width) - 1);
  // lanes of earlier segments may be read, later ones not
  return simt::shuffle(mask, value, source >= segment + static_cast<unsigned>(width) ? simt::lane() : source, where);
}

// Votes.
inline uint32_t __ballot_sync(uint32_t mask, int vote, simt::Where where = simt::Where::current()) {
  return static_cast<uint32_t>(simt::exchange(simt::Collective::ballot, mask, vote != 0, 0, where));
}
inline int __any_sync(uint32_t mask, int vote, simt::Where where = simt::Where::current()) {
  return __ballot_sync(mask, vote, where) != 0;
}
inline int __all_sync(uint32_t mask, int vote, simt::Where where = simt::Where::current()) {
  return __ballot_sync(mask, vote, where) == mask;
}
// Lanes of a warp need not run together: the least that a GPU may answer is the caller alone.
inline uint32_t __activemask() { return 1U << simt::lane(); }

// Atomics: one OS thread runs a kernel, so they need no more than their meaning.
template <typename T, typename Apply>
T simtAtomic(T* address, Apply apply) {
  const T old = *address;
  *address = apply(old);
  return old;
}
template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T old) { return std::max(old, value); });
}
template <typename T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T old) { return std::min(old, value); });
}
template <typename T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T old) { return old == expected ? value : old; });
}
template <typename T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return simtAtomic(address, [=](T old) { return old | value; });
}

namespace cooperative_groups {

struct cluster_group {
  static void sync(simt::Where where = simt::Where::current()) { simt::clusterBarrier(where); }
  static unsigned block_rank() { return simt::clusterRank(); }
  static unsigned num_blocks() { return simt::clusterBlocks(); }
  template <typename T>
  static T* map_shared_rank(T* pointer, unsigned rank) {
    return static_cast<T*>(simt::mapShared(pointer, rank));
  }
};
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups

// Half precision as the device stores it, rounded to nearest even.
struct __half {
  uint16_t bits = 0;
};
struct __nv_bfloat16 {
  uint16_t bits = 0;
};

inline float __bfloat162float(__nv_bfloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (value != value) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline float __half2float(__half value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000U} << 16;
  const uint32_t magnitude = value.bits & 0x7fffU;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
  // as a float with half's exponent; the product moves the exponent's bias, for subnormal numbers too
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112F));
}
inline __half __float2half_rn(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  const auto with = [&](uint32_t half) { return __half{static_cast<uint16_t>(sign | half)}; };
  if (magnitude > 0x7f800000U) return {0x7fff};
  if (magnitude >= 0x477ff000U) return with(0x7c00);  // 65520 and more round to infinity
  if (magnitude < 0x38800000U)  // subnormal: adding 0.5 leaves multiples of 2^-24 in the low bits, rounded
    return with(std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<uint32_t>(0.5F));
  return with((magnitude - 0x38000000U + 0xfffU + (magnitude >> 13 & 1)) >> 13);
}
