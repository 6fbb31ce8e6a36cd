#include "elementwise.h"

#include "lanes.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

__device__ __forceinline__ float apply(Unary op, float x) {
  switch (op) {
    case Unary::relu:
      return reluOf(x);
    case Unary::sigmoid:
      return sigmoidOf(x);
    case Unary::sqrt:
      return sqrtf(x);
    case Unary::exp:
      return expf(x);
    case Unary::log:
      return logf(x);
    case Unary::neg:
      return -x;
  }
  return x;
}

// y[i] = f(a[i], b[i]) for floats, 16 bytes at a time with what is left over one by one; b may be left out.
// Moves a, where it is given b, and y once. Bound: memory.
template <typename T, int N, typename F>
__global__ void __launch_bounds__(threads) mapKernel(const T* a, const T* b, T* y, int64_t count, F f) {
  const int64_t first = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * threads;
  for (int64_t i = first; i < count / N; i += step) {
    float left[N], right[N] = {};
    loadLanes(a + i * N, left);
    if (b != nullptr) loadLanes(b + i * N, right);
#pragma unroll
    for (int k = 0; k < N; ++k) left[k] = f(left[k], right[k]);
    storeLanes(left, y + i * N);
  }
  const int64_t rest = count / N * N + first;
  if (rest < count) y[rest] = fromFloat<T>(f(toFloat(a[rest]), b == nullptr ? 0.F : toFloat(b[rest])));
}

struct ApplyUnary {
  Unary op;
  __device__ float operator()(float x, float) const { return apply(op, x); }
};

struct ApplyGradient {
  bool relu;
  __device__ float operator()(float y, float dy) const { return relu ? reluGradientOf(y, dy) : dy * y * (1 - y); }
};

template <typename F>
void launchMap(const char* name, Stream stream, DType dtype, const void* a, const void* b, void* y, int64_t count, F f) {
  if (count == 0) return;
  withFloat(name, dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      launch(name, stream, {dim3(stridedBlocks(divideUp(count, N), threads)), dim3(threads)}, mapKernel<T, N, F>,
             static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(y), count, f);
    };
    withLanes<T>(0, with, a, b, y);  // any count: the kernel has a tail
  });
}

template <typename T>
__device__ __forceinline__ T apply(Binary op, T a, T b) {
  if constexpr (std::is_integral_v<T>) {  // uint64 arithmetic is that of every integer dtype once cut to its width
    const auto p = static_cast<uint64_t>(a), q = static_cast<uint64_t>(b);
    return static_cast<T>(op == Binary::add ? p + q : op == Binary::sub ? p - q : p * q);
  } else {
    const float p = toFloat(a), q = toFloat(b);
    return fromFloat<T>(op == Binary::add ? p + q : op == Binary::sub ? p - q : op == Binary::mul ? p * q : p / q);
  }
}

template <typename T, int N>
__device__ __forceinline__ Lanes<T, N> repeatOrLoad(const T* from, bool repeated) {
  if (!repeated) return *reinterpret_cast<const Lanes<T, N>*>(from);
  Lanes<T, N> lanes;
  const T value = *from;
#pragma unroll
  for (int k = 0; k < N; ++k) lanes.value[k] = value;
  return lanes;
}

// Moves a, b and y once; what is repeated comes from caches. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    binaryKernel(Binary op, const T* a, const T* b, T* y, Walk walk, int64_t count, bool repeatA, bool repeatB) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads) {
    int64_t at[2];
    offsets(walk, i, at);
    const Lanes<T, N> left = repeatOrLoad<T, N>(a + at[0], repeatA);
    const Lanes<T, N> right = repeatOrLoad<T, N>(b + at[1], repeatB);
    Lanes<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.value[k] = apply(op, left.value[k], right.value[k]);
    *reinterpret_cast<Lanes<T, N>*>(y + i * N) = result;
  }
}

// Moves y once, and x, which is smaller. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    broadcastKernel(const T* x, T* y, Walk walk, int64_t count, bool repeat, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads) {
    int64_t at[1];
    offsets(walk, i, at);
    Lanes<T, N> lanes = repeatOrLoad<T, N>(x + at[0], repeat);
#pragma unroll
    for (int k = 0; k < N; ++k) lanes.value[k] = fromFloat<T>(toFloat(lanes.value[k]) * scale);
    *reinterpret_cast<Lanes<T, N>*>(y + i * N) = lanes;
  }
}

// Calls `use` with the walk and the number of elements to move at a time.
template <typename T, typename Use, typename... Pointers>
void withWalk(const Walk& given, int arrays, Use use, Pointers... pointers) {
  Walk walk = merged(given, arrays);
  if (aligned(pointers...) && inLanes(walk, arrays, wide<T>)) use(walk, std::integral_constant<int, wide<T>>{});
  else use(walk, std::integral_constant<int, 1>{});
}

// Moves y once. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads) fillKernel(T* y, int64_t count, float value) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads)
    y[i] = fromFloat<T>(value);
}

// Drops the fraction and cuts to the integer's width, as JavaScript does; NaN and infinities become 0.
template <typename To>
__device__ __forceinline__ To wrapped(float value) {
  constexpr float limit = 9223372036854775808.F;  // 2^63
  if (value > -limit && value < limit) return static_cast<To>(static_cast<int64_t>(value));
  if (!(fabsf(value) <= 3.402823466e38F)) return 0;
  const float rest = fmodf(fabsf(value), 2 * limit);  // exact: a multiple of 2^40
  const auto bits = static_cast<uint64_t>(rest);
  return static_cast<To>(value < 0 ? 0 - bits : bits);
}

template <typename From, typename To>
__device__ __forceinline__ To converted(From value) {
  if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) return static_cast<To>(static_cast<uint64_t>(value));
  else if constexpr (std::is_integral_v<To>) return wrapped<To>(toFloat(value));
  else if constexpr (std::is_integral_v<From>) return fromFloat<To>(static_cast<float>(value));
  else return fromFloat<To>(toFloat(value));
}

// Moves x and y once, each in the size of its dtype. Bound: memory.
template <typename From, typename To, int N>
__global__ void __launch_bounds__(threads) castKernel(const From* x, To* y, int64_t count) {
  const int64_t first = int64_t{blockIdx.x} * threads + threadIdx.x;
  for (int64_t i = first; i < count / N; i += int64_t{gridDim.x} * threads) {
    const Lanes<From, N> from = *reinterpret_cast<const Lanes<From, N>*>(x + i * N);
    Lanes<To, N> to;
#pragma unroll
    for (int k = 0; k < N; ++k) to.value[k] = converted<From, To>(from.value[k]);
    *reinterpret_cast<Lanes<To, N>*>(y + i * N) = to;
  }
  const int64_t rest = count / N * N + first;
  if (rest < count) y[rest] = converted<From, To>(x[rest]);
}

}  // namespace

void launchUnary(Stream stream, const UnaryArguments& a) {
  launchMap("unary", stream, a.dtype, a.x, nullptr, a.y, a.count, ApplyUnary{a.op});
}

void launchActivationGradient(Stream stream, const ActivationGradientArguments& a) {
  launchMap("activation_gradient", stream, a.dtype, a.y, a.dy, a.dx, a.count, ApplyGradient{a.op == Unary::relu});
}

void launchBinary(Stream stream, const BinaryArguments& a) {
  const char* name = "binary";
  if (a.walk.size() == 0) return;
  if (a.op == Binary::div && !isFloat(a.dtype))
    throw Error(name, std::string("expected a float dtype to divide, got ") + nameOf(a.dtype), Error::dtype);
  withAny(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](const Walk& walk, auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const int inner = walk.rank - 1;
      launch(name, stream, {dim3(stridedBlocks(walk.size(), threads)), dim3(threads)}, binaryKernel<T, N>, a.op,
             static_cast<const T*>(a.a), static_cast<const T*>(a.b), static_cast<T*>(a.y), walk, walk.size(),
             walk.strides[0][inner] == 0, walk.strides[1][inner] == 0);
    };
    withWalk<T>(a.walk, 2, with, a.a, a.b, a.y);
  });
}

void launchBroadcast(Stream stream, const BroadcastArguments& a) {
  const char* name = "broadcast";
  if (a.walk.size() == 0) return;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](const Walk& walk, auto lanes) {
      constexpr int N = decltype(lanes)::value;
      launch(name, stream, {dim3(stridedBlocks(walk.size(), threads)), dim3(threads)}, broadcastKernel<T, N>,
             static_cast<const T*>(a.x), static_cast<T*>(a.y), walk, walk.size(), walk.strides[0][walk.rank - 1] == 0,
             a.scale);
    };
    withWalk<T>(a.walk, 1, with, a.x, a.y);
  });
}

void launchFill(Stream stream, const FillArguments& a) {
  if (a.count == 0) return;
  withFloat("fill", a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch("fill", stream, {dim3(stridedBlocks(a.count, threads)), dim3(threads)}, fillKernel<T>, static_cast<T*>(a.y),
           a.count, a.value);
  });
}

void launchCast(Stream stream, const CastArguments& a) {
  if (a.count == 0) return;
  withAny("cast", a.from, [&](auto from) {
    withAny("cast", a.to, [&](auto to) {
      using From = typename decltype(from)::Type;
      using To = typename decltype(to)::Type;
      constexpr int lanes = sizeof(From) == 8 || sizeof(To) == 8 ? 2 : 4;
      const Shape3 shape{dim3(stridedBlocks(divideUp(a.count, lanes), threads)), dim3(threads)};
      launch("cast", stream, shape, aligned(a.x, a.y) ? castKernel<From, To, lanes> : castKernel<From, To, 1>,
             static_cast<const From*>(a.x), static_cast<To*>(a.y), a.count);
    });
  });
}

}  // namespace seresnet::cuda
