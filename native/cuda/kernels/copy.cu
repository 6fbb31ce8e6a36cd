#include "copy.h"

#include "lanes.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

struct alignas(16) Bytes16 {
  uint64_t value[2];
};

// Moves the elements of the walk, in and out. Bound: memory, where neighbours stay neighbours.
template <typename T>
__global__ void __launch_bounds__(threads) copyKernel(const T* x, T* y, Walk walk, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads) {
    int64_t at[2];
    offsets(walk, i, at);
    y[at[1]] = x[at[0]];
  }
}

template <typename T>
void copy(Stream stream, const CopyArguments& a, const Walk& walk) {
  launch("copy", stream, {dim3(stridedBlocks(walk.size(), threads)), dim3(threads)}, copyKernel<T>,
         static_cast<const T*>(a.x), static_cast<T*>(a.y), walk, walk.size());
}

// The walk in units of `lanes` elements, or nothing changed where some step is none.
bool inUnits(Walk& walk, int lanes) {
  const int inner = walk.rank - 1;
  if (walk.strides[0][inner] != 1 || walk.strides[1][inner] != 1 || walk.shape[inner] % lanes != 0) return false;
  for (int a = 0; a < 2; ++a)
    for (int dim = 0; dim < inner; ++dim)
      if (walk.strides[a][dim] % lanes != 0) return false;
  walk.shape[inner] /= lanes;
  for (int a = 0; a < 2; ++a)
    for (int dim = 0; dim < inner; ++dim) walk.strides[a][dim] /= lanes;
  return true;
}

}  // namespace

void launchCopy(Stream stream, const CopyArguments& a) {
  if (a.walk.size() == 0) return;
  Walk walk = merged(a.walk, 2);
  if (16 % a.width == 0 && aligned(a.x, a.y) && inUnits(walk, 16 / a.width)) return copy<Bytes16>(stream, a, walk);
  switch (a.width) {
    case 1:
      return copy<uint8_t>(stream, a, walk);
    case 2:
      return copy<uint16_t>(stream, a, walk);
    case 4:
      return copy<uint32_t>(stream, a, walk);
    case 8:
      return copy<uint64_t>(stream, a, walk);
    default:
      throw Error("copy", "expected elements of 1, 2, 4 or 8 bytes, got " + std::to_string(a.width));
  }
}

}  // namespace seresnet::cuda
