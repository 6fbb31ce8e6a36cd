#include "trial.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

// Moves y once. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads) noiseKernel(T* y, int64_t count, uint32_t seed) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads)
    y[i] = fromFloat<T>(noiseAt(seed, i));
}

// Moves x and the reference once, 2 floats a block. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads) differenceKernel(const T* x, const T* reference, int64_t count, float* sums) {
  SHARED(float, memory, 2 * threads);
  const int thread = static_cast<int>(threadIdx.x);
  float apart = 0, norm = 0;
  for (int64_t i = int64_t{blockIdx.x} * threads + thread; i < count; i += int64_t{gridDim.x} * threads) {
    const float expected = toFloat(reference[i]), difference = toFloat(x[i]) - expected;
    apart += difference * difference;
    norm += expected * expected;
  }
  memory[thread] = apart;
  memory[threads + thread] = norm;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (thread < half)
      for (int sum = 0; sum < 2; ++sum) memory[sum * threads + thread] += memory[sum * threads + thread + half];
    __syncthreads();
  }
  if (thread < 2) sums[int64_t{blockIdx.x} * 2 + thread] = memory[thread * threads];
}

}  // namespace

void launchNoise(Stream stream, const NoiseArguments& a) {
  const char* name = "noise";
  if (a.count == 0) return;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch(name, stream, {dim3(stridedBlocks(a.count, threads)), dim3(threads)}, noiseKernel<T>, static_cast<T*>(a.y),
           a.count, a.seed);
  });
}

int64_t differenceParts(int64_t count) { return stridedBlocks(count, threads); }

void launchDifference(Stream stream, const DifferenceArguments& a) {
  const char* name = "difference";
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch(name, stream, {dim3(static_cast<unsigned>(differenceParts(a.count))), dim3(threads)}, differenceKernel<T>,
           static_cast<const T*>(a.x), static_cast<const T*>(a.reference), a.count, a.sums);
  });
}

}  // namespace seresnet::cuda
