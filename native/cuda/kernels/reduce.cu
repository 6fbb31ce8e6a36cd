#include "reduce.h"

#include "lanes.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

// What remembers the low bits of a sum (Kahan 1965), so that long sums in float32 are right.
struct Compensated {
  float sum = 0, lost = 0;

  __device__ __forceinline__ void add(float value) {
    const float corrected = value - lost;
    const float next = sum + corrected;
    lost = (next - sum) - corrected;
    sum = next;
  }
  __device__ __forceinline__ void add(const Compensated& other) {
    add(-other.lost);
    add(other.sum);
  }
};

struct Wrapping {
  uint64_t sum = 0;

  __device__ __forceinline__ void add(uint64_t value) { sum += value; }
  __device__ __forceinline__ void add(const Wrapping& other) { sum += other.sum; }
};

// A block has `outputs` outputs side by side, a power of two, and threads / outputs threads for each.
// Moves x and y once. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads)
    reduceKernel(const T* x, T* y, Walk kept, Walk reduced, int64_t size, int64_t count, int outputs, float divisor) {
  constexpr bool integer = std::is_integral_v<T>;
  using Sum = std::conditional_t<integer, Wrapping, Compensated>;
  SHARED(unsigned char, memory, threads * sizeof(Sum));
  Sum* sums = reinterpret_cast<Sum*>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const int each = threads / outputs;
  const int64_t output = int64_t{blockIdx.x} * outputs + thread % outputs;
  Sum mine;
  if (output < size) {
    int64_t start[1], place[1];
    offsets(kept, output, start);
    for (int64_t k = thread / outputs; k < count; k += each) {
      offsets(reduced, k, place);
      const T value = x[start[0] + place[0]];
      if constexpr (integer) mine.add(static_cast<uint64_t>(value));
      else mine.add(toFloat(value));
    }
  }
  sums[thread] = mine;
  __syncthreads();
  for (int half = each / 2; half > 0; half /= 2) {
    if (thread < half * outputs) sums[thread].add(sums[thread + half * outputs]);
    __syncthreads();
  }
  if (thread >= outputs || output >= size) return;
  if constexpr (integer) y[output] = static_cast<T>(sums[thread].sum);
  else y[output] = fromFloat<T>(sums[thread].sum / divisor);
}

}  // namespace

void launchReduce(Stream stream, const ReduceArguments& a) {
  const char* name = "reduce";
  const int64_t size = a.kept.size(), count = a.reduced.size();
  if (size == 0) return;
  if (a.mean && !isFloat(a.dtype))
    throw Error(name, std::string("expected a float dtype for the mean, got ") + nameOf(a.dtype), Error::dtype);
  const Walk kept = merged(a.kept, 1), reduced = merged(a.reduced, 1);
  // neighbouring threads read neighbours: outputs side by side where those lie closer than what is summed
  const bool columns = kept.strides[0][kept.rank - 1] == 1 && reduced.strides[0][reduced.rank - 1] != 1;
  int outputs = 1;
  const int64_t most = columns ? 32 : std::max<int64_t>(1, threads / std::max<int64_t>(count, 1));
  while (outputs * 2 <= std::min<int64_t>(most, threads) && outputs < size) outputs *= 2;
  withAny(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch(name, stream, {dim3(blocks(name, divideUp(size, outputs))), dim3(threads)}, reduceKernel<T>,
           static_cast<const T*>(a.x), static_cast<T*>(a.y), kept, reduced, size, count, outputs,
           a.mean ? static_cast<float>(count) : 1.F);
  });
}

}  // namespace seresnet::cuda
