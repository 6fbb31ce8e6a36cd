#include "softmax.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 128;

// A warp per line.
// Moves x once (a line is read again from caches), y once. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads)
    softmaxKernel(const T* x, T* y, int64_t lines, int64_t extent, int64_t inner, bool logarithm) {
  const int64_t line = int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32;
  if (line >= lines) return;  // whole warps leave, and only warps work together
  const int64_t start = line / inner * extent * inner + line % inner;
  const int64_t first = threadIdx.x % 32;
  float largest = -INFINITY;
  for (int64_t i = first; i < extent; i += 32) {
    const float value = toFloat(x[start + i * inner]);
    largest = value > largest || value != value ? value : largest;
  }
  largest = warpMax(largest);
  float sum = 0;
  for (int64_t i = first; i < extent; i += 32) sum += expf(toFloat(x[start + i * inner]) - largest);
  sum = warpSum(sum);
  const float logSum = logf(sum);
  for (int64_t i = first; i < extent; i += 32) {
    const float shifted = toFloat(x[start + i * inner]) - largest;
    y[start + i * inner] = fromFloat<T>(logarithm ? shifted - logSum : expf(shifted) / sum);
  }
}

}  // namespace

void launchSoftmax(Stream stream, const SoftmaxArguments& a) {
  const int64_t lines = a.outer * a.inner;
  if (lines * a.extent == 0) return;
  withFloat("softmax", a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch("softmax", stream, {dim3(blocks("softmax", divideUp(lines, threads / 32))), dim3(threads)}, softmaxKernel<T>,
           static_cast<const T*>(a.x), static_cast<T*>(a.y), lines, a.extent, a.inner, a.logarithm);
  });
}

}  // namespace seresnet::cuda
