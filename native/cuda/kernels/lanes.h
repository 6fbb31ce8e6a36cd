#pragma once

#include "launch.h"

// Device code that kernels share: storage and arithmetic types, 16 bytes at a time, sums over warps and blocks.
namespace seresnet::cuda {

__device__ __forceinline__ float toFloat(float value) { return value; }
__device__ __forceinline__ float toFloat(__half value) { return __half2float(value); }
__device__ __forceinline__ float toFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T fromFloat(float value) {
  if constexpr (std::is_same_v<T, __half>) return __float2half_rn(value);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16_rn(value);
  else return value;
}

__device__ __forceinline__ float reluOf(float value) { return value < 0 ? 0.F : value; }  // NaN stays NaN
// The gradient behind a ReLU whose result is y; NaN lets it through, as in PyTorch.
__device__ __forceinline__ float reluGradientOf(float y, float dy) { return y <= 0 ? 0.F : dy; }
__device__ __forceinline__ float sigmoidOf(float value) { return 1.F / (1.F + expf(-value)); }

// How many elements 16 bytes hold.
template <typename T>
constexpr int wide = 16 / sizeof(T);

// N neighbours, moved by one access: N is 1 or wide<T>.
template <typename T, int N>
struct alignas(sizeof(T) * N) Lanes {
  T value[N];
};

template <int N, typename T>
__device__ __forceinline__ void loadLanes(const T* from, float (&to)[N]) {
  const Lanes<T, N> lanes = *reinterpret_cast<const Lanes<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = toFloat(lanes.value[i]);
}

template <int N, typename T>
__device__ __forceinline__ void storeLanes(const float (&from)[N], T* to) {
  Lanes<T, N> lanes;
#pragma unroll
  for (int i = 0; i < N; ++i) lanes.value[i] = fromFloat<T>(from[i]);
  *reinterpret_cast<Lanes<T, N>*>(to) = lanes;
}

// Calls `use` with the number of elements to move at a time as a constant: wide<T>, or 1 where `count` is no multiple of
// that or a pointer is not aligned.
template <typename T, typename Use, typename... Pointers>
void withLanes(int64_t count, Use use, Pointers... pointers) {
  if (count % wide<T> == 0 && aligned(pointers...)) use(std::integral_constant<int, wide<T>>{});
  else use(std::integral_constant<int, 1>{});
}

// An element of a vector of any float dtype, `absent` without data.
__device__ __forceinline__ float at(const Vector& vector, int64_t i, float absent) {
  if (vector.data == nullptr) return absent;
  switch (vector.dtype) {
    case DType::float16:
      return toFloat(static_cast<const __half*>(vector.data)[i]);
    case DType::bfloat16:
      return toFloat(static_cast<const __nv_bfloat16*>(vector.data)[i]);
    default:
      return static_cast<const float*>(vector.data)[i];
  }
}

// N neighbours of it, with one look at the dtype.
template <int N>
__device__ __forceinline__ void at(const Vector& vector, int64_t first, float absent, float (&to)[N]) {
  const auto all = [&](auto load) {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = load(first + i);
  };
  if (vector.data == nullptr) return all([=](int64_t) { return absent; });
  switch (vector.dtype) {
    case DType::float16:
      return all([&](int64_t i) { return toFloat(static_cast<const __half*>(vector.data)[i]); });
    case DType::bfloat16:
      return all([&](int64_t i) { return toFloat(static_cast<const __nv_bfloat16*>(vector.data)[i]); });
    default:
      return all([&](int64_t i) { return static_cast<const float*>(vector.data)[i]; });
  }
}

__device__ __forceinline__ void put(const VectorOut& vector, int64_t i, float value) {
  if (vector.data == nullptr) return;
  switch (vector.dtype) {
    case DType::float16:
      static_cast<__half*>(vector.data)[i] = fromFloat<__half>(value);
      break;
    case DType::bfloat16:
      static_cast<__nv_bfloat16*>(vector.data)[i] = fromFloat<__nv_bfloat16>(value);
      break;
    default:
      static_cast<float*>(vector.data)[i] = value;
  }
}

constexpr uint32_t wholeWarp = 0xffffffffU;

// All lanes get the result.
template <typename T>
__device__ __forceinline__ T warpSum(T value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(wholeWarp, value, step);
  return value;
}

__device__ __forceinline__ float warpMax(float value) {
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(wholeWarp, value, step);
    value = other > value || other != other ? other : value;
  }
  return value;
}

// The sum over a block of whole warps, for all of its threads; `scratch` holds 32 elements of shared memory.
template <typename T>
__device__ __forceinline__ T blockSum(T value, T* scratch) {
  const unsigned thread = threadIdx.x;
  value = warpSum(value);
  if (thread % 32 == 0) scratch[thread / 32] = value;
  __syncthreads();
  value = thread % 32 < blockDim.x / 32 ? scratch[thread % 32] : T(0);
  value = warpSum(value);
  __syncthreads();  // scratch may be used again
  return value;
}

// How a block of `threads` covers rows of channels: `columns` threads side by side, each with its own N channels, and
// `rows` of them in turn.
struct Tile {
  int columns, rows;

  // channels: of the tensor; N: channels a thread.
  static Tile of(int64_t channels, int lanes, int threads) {
    int columns = 1;
    while (columns < threads && columns * lanes < channels && columns < 32) columns *= 2;
    return {columns, threads / columns};
  }
  int64_t across(int64_t channels, int lanes) const { return divideUp(channels, int64_t{columns} * lanes); }
};

}  // namespace seresnet::cuda
