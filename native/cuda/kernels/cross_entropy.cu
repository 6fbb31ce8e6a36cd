#include "cross_entropy.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 128;

struct Targets {
  const void* data;
  bool wide;

  __device__ __forceinline__ int64_t operator[](int64_t n) const {
    return wide ? static_cast<const int64_t*>(data)[n] : static_cast<const int32_t*>(data)[n];
  }
};

struct Row {
  float largest, sum, shifted;
};

// The largest of a row, and the sums of exp(x - largest) and of x - largest; for all lanes of the warp.
template <typename T>
__device__ __forceinline__ Row rowOf(const T* row, int64_t classes) {
  const int64_t first = threadIdx.x % 32;
  Row result{-INFINITY, 0, 0};
  for (int64_t c = first; c < classes; c += 32) {
    const float value = toFloat(row[c]);
    result.largest = value > result.largest || value != value ? value : result.largest;
  }
  result.largest = warpMax(result.largest);
  for (int64_t c = first; c < classes; c += 32) {
    const float shifted = toFloat(row[c]) - result.largest;
    result.sum += expf(shifted);
    result.shifted += shifted;
  }
  result.sum = warpSum(result.sum);
  result.shifted = warpSum(result.shifted);
  return result;
}

// A warp per row.
// Moves the logits once (a row is read again from caches), a target and a loss an image. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads)
    lossKernel(const T* logits, Targets targets, VectorOut loss, int64_t batch, int64_t classes, float smoothing,
               int32_t* invalid) {
  const int64_t n = int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32;
  if (n >= batch) return;  // whole warps leave, and only warps work together
  const T* row = logits + n * classes;
  const Row r = rowOf(row, classes);
  if (threadIdx.x % 32 != 0) return;
  const int64_t target = targets[n];
  if (target < 0 || target >= classes) {
    if (invalid != nullptr) atomicMax(invalid, static_cast<int32_t>(batch - n));
    return put(loss, n, NAN);
  }
  const float logSum = logf(r.sum);
  const float hit = logSum - (toFloat(row[target]) - r.largest);
  const float even = logSum - r.shifted / static_cast<float>(classes);
  put(loss, n, smoothing == 0 ? hit : (1 - smoothing) * hit + smoothing * even);
}

// Moves a float an image. Bound: latency, one block.
__global__ void __launch_bounds__(threads) totalKernel(const float* losses, VectorOut loss, int64_t batch, bool mean) {
  SHARED(double, scratch, 32);
  double sum = 0;
  for (int64_t n = threadIdx.x; n < batch; n += threads) sum += losses[n];
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) put(loss, 0, static_cast<float>(mean ? sum / static_cast<double>(batch) : sum));
}

// Moves the logits once (a row is read again from caches), their gradient once. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads)
    lossGradientKernel(const T* logits, T* dlogits, Targets targets, Vector dloss, int64_t batch, int64_t classes,
                       float smoothing, Reduction reduction) {
  const int64_t n = int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32;
  if (n >= batch) return;
  const T* row = logits + n * classes;
  const Row r = rowOf(row, classes);
  const float scale = at(dloss, reduction == Reduction::none ? n : 0, 1.F) /
                      (reduction == Reduction::mean ? static_cast<float>(batch) : 1.F);
  const int64_t target = targets[n];
  for (int64_t c = threadIdx.x % 32; c < classes; c += 32) {
    const float wanted = smoothing / static_cast<float>(classes) + (c == target ? 1 - smoothing : 0.F);
    dlogits[n * classes + c] = fromFloat<T>(scale * (expf(toFloat(row[c]) - r.largest) / r.sum - wanted));
  }
}

bool isWide(const char* name, DType type) {
  if (type == DType::int32 || type == DType::int64) return type == DType::int64;
  throw Error(name, std::string("expected int32 or int64 targets, got ") + nameOf(type), Error::dtype);
}

}  // namespace

void launchCrossEntropy(Stream stream, const CrossEntropyArguments& a) {
  const char* name = "cross_entropy";
  const bool none = a.reduction == Reduction::none;
  const Targets targets{a.targets, isWide(name, a.targetType)};
  const VectorOut loss{a.loss, a.lossType};
  if (a.batch > 0)
    withFloat(name, a.dtype, [&](auto tag) {
      using T = typename decltype(tag)::Type;
      launch(name, stream, {dim3(blocks(name, divideUp(a.batch, threads / 32))), dim3(threads)}, lossKernel<T>,
             static_cast<const T*>(a.logits), targets, none ? loss : VectorOut{a.workspace}, a.batch, a.classes,
             a.labelSmoothing, a.invalid);
    });
  if (!none)
    launch(name, stream, {dim3(1), dim3(threads)}, totalKernel, static_cast<const float*>(a.workspace), loss, a.batch,
           a.reduction == Reduction::mean);
}

void launchCrossEntropyGradient(Stream stream, const CrossEntropyGradientArguments& a) {
  const char* name = "cross_entropy_gradient";
  if (a.batch * a.classes == 0) return;
  const Targets targets{a.targets, isWide(name, a.targetType)};
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch(name, stream, {dim3(blocks(name, divideUp(a.batch, threads / 32))), dim3(threads)}, lossGradientKernel<T>,
           static_cast<const T*>(a.logits), static_cast<T*>(a.dlogits), targets, a.dloss, a.batch, a.classes,
           a.labelSmoothing, a.reduction);
  });
}

}  // namespace seresnet::cuda
