#pragma once

#include "arguments.h"

#if defined(__CUDACC__)
#define ON_BOTH __host__ __device__
#else
#define ON_BOTH
#endif

// What trials of engines need: data that is not all zeros, and how far two results are apart.
namespace seresnet::cuda {

// Multiples of 1/64 from -1 to 1, which every float dtype holds exactly; the same for the same seed and index.
ON_BOTH inline float noiseAt(uint32_t seed, int64_t index) {
  uint32_t bits = (static_cast<uint32_t>(index) ^ static_cast<uint32_t>(index >> 32) * 0x85ebca6bU) + seed * 0x9e3779b9U;
  bits = (bits ^ bits >> 16) * 0x7feb352dU;
  bits = (bits ^ bits >> 15) * 0x846ca68bU;
  return static_cast<float>(static_cast<int>(bits >> 25) - 64) / 64.F;
}

// y[i] = noiseAt(seed, i).
struct NoiseArguments {
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t count = 0;
  uint32_t seed = 0;
};
void launchNoise(Stream stream, const NoiseArguments& arguments);

// How many pairs of sums launchDifference writes.
int64_t differenceParts(int64_t count);

// sums [parts, 2]: of the squares of x - reference, and of those of the reference. Both float32, of a part of the elements.
struct DifferenceArguments {
  const void* x = nullptr;
  const void* reference = nullptr;
  DType dtype = DType::float32;
  int64_t count = 0;
  float* sums = nullptr;
};
void launchDifference(Stream stream, const DifferenceArguments& arguments);

}  // namespace seresnet::cuda
