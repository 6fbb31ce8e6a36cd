#include "pool2d.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

// Sizes as 32-bit numbers: images of more than 2^31 elements go through 64-bit offsets of whole images.
struct Window {
  int height, width, channels, outHeight, outWidth;
  int kernel[2], stride[2], padding[2], dilation[2];
  bool countIncludePad;
};

// Places of the output (or, on the way back, of the input): x is the image's row, y the columns, z the channels.
struct Place {
  int64_t image;
  int row, column, channel;
};

__device__ __forceinline__ Place placeOf(int rows, const Tile& tile, int lanes) {
  const int thread = static_cast<int>(threadIdx.x);
  return {static_cast<int64_t>(blockIdx.x) / rows, static_cast<int>(blockIdx.x % static_cast<unsigned>(rows)),
          static_cast<int>(blockIdx.y) * tile.rows + thread / tile.columns,
          (static_cast<int>(blockIdx.z) * tile.columns + thread % tile.columns) * lanes};
}

// Moves x and y once; windows that overlap read from caches. Bound: memory.
template <typename T, int N, bool Max>
__global__ void __launch_bounds__(threads) poolKernel(const T* x, T* y, Window w, Tile tile) {
  const Place p = placeOf(w.outHeight, tile, N);
  if (p.column >= w.outWidth || p.channel >= w.channels) return;
  const T* image = x + p.image * w.height * w.width * w.channels + p.channel;
  const int top = p.row * w.stride[0] - w.padding[0];
  const int left = p.column * w.stride[1] - w.padding[1];
  float result[N];
#pragma unroll
  for (int i = 0; i < N; ++i) result[i] = Max ? -INFINITY : 0.F;
  for (int i = 0; i < w.kernel[0]; ++i) {
    const int row = top + i * w.dilation[0];
    if (row < 0 || row >= w.height) continue;
    for (int j = 0; j < w.kernel[1]; ++j) {
      const int column = left + j * w.dilation[1];
      if (column < 0 || column >= w.width) continue;
      float value[N];
      loadLanes(image + (int64_t{row} * w.width + column) * w.channels, value);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if constexpr (Max) result[k] = value[k] > result[k] || value[k] != value[k] ? value[k] : result[k];
        else result[k] += value[k];
      }
    }
  }
  if constexpr (!Max) {
    const int bottom = min(top + w.kernel[0], w.height + w.padding[0]);
    const int right = min(left + w.kernel[1], w.width + w.padding[1]);
    const int inside = (min(bottom, w.height) - max(top, 0)) * (min(right, w.width) - max(left, 0));
    const float count = static_cast<float>(w.countIncludePad ? (bottom - top) * (right - left) : inside);
#pragma unroll
    for (int k = 0; k < N; ++k) result[k] /= count;
  }
  storeLanes(result, y + ((p.image * w.outHeight + p.row) * w.outWidth + p.column) * w.channels + p.channel);
}

// The first window that reaches `at`, and the last: at = window * stride - padding + tap * dilation.
__device__ __forceinline__ int firstWindow(int at, int reach, int stride, int padding) {
  const int from = at + padding - reach;
  return from <= 0 ? 0 : (from + stride - 1) / stride;
}

// Which of the window's inputs is its largest: the first of equals, or the last NaN, as in PyTorch.
template <typename T, int N>
__device__ __forceinline__ void winners(const T* image, const Window& w, int top, int left, int (&winner)[N]) {
  float largest[N];
#pragma unroll
  for (int k = 0; k < N; ++k) winner[k] = -1;
  for (int i = 0; i < w.kernel[0]; ++i) {
    const int row = top + i * w.dilation[0];
    if (row < 0 || row >= w.height) continue;
    for (int j = 0; j < w.kernel[1]; ++j) {
      const int column = left + j * w.dilation[1];
      if (column < 0 || column >= w.width) continue;
      float value[N];
      loadLanes(image + (int64_t{row} * w.width + column) * w.channels, value);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const bool better = winner[k] < 0 || value[k] > largest[k] || value[k] != value[k];
        if (better) {
          largest[k] = value[k];
          winner[k] = row * w.width + column;
        }
      }
    }
  }
}

// A thread gathers what the windows over its input send back. Left to itself the compiler spills to fit more blocks on a
// processor than three.
// Moves dy and dx once, for the largest x too; windows that overlap read from caches. Bound: memory.
template <typename T, int N, bool Max>
__global__ void __launch_bounds__(threads, 3) poolGradientKernel(const T* x, const T* dy, T* dx, Window w, Tile tile) {
  const Place p = placeOf(w.height, tile, N);
  if (p.column >= w.width || p.channel >= w.channels) return;
  const int64_t inputs = p.image * w.height * w.width * w.channels + p.channel;
  const int64_t outputs = p.image * w.outHeight * w.outWidth * w.channels + p.channel;
  const int reach[2] = {(w.kernel[0] - 1) * w.dilation[0], (w.kernel[1] - 1) * w.dilation[1]};
  const int lastRow = min((p.row + w.padding[0]) / w.stride[0], w.outHeight - 1);
  const int lastColumn = min((p.column + w.padding[1]) / w.stride[1], w.outWidth - 1);
  float result[N] = {};
  for (int i = firstWindow(p.row, reach[0], w.stride[0], w.padding[0]); i <= lastRow; ++i) {
    const int top = i * w.stride[0] - w.padding[0];
    if ((p.row - top) % w.dilation[0] != 0) continue;
    for (int j = firstWindow(p.column, reach[1], w.stride[1], w.padding[1]); j <= lastColumn; ++j) {
      const int left = j * w.stride[1] - w.padding[1];
      if ((p.column - left) % w.dilation[1] != 0) continue;
      float gradient[N];
      loadLanes(dy + outputs + (int64_t{i} * w.outWidth + j) * w.channels, gradient);
      if constexpr (Max) {
        int winner[N];
        winners(x + inputs, w, top, left, winner);
#pragma unroll
        for (int k = 0; k < N; ++k) result[k] += winner[k] == p.row * w.width + p.column ? gradient[k] : 0.F;
      } else {
        const int bottom = min(top + w.kernel[0], w.height + w.padding[0]);
        const int right = min(left + w.kernel[1], w.width + w.padding[1]);
        const int inside = (min(bottom, w.height) - max(top, 0)) * (min(right, w.width) - max(left, 0));
        const float count = static_cast<float>(w.countIncludePad ? (bottom - top) * (right - left) : inside);
#pragma unroll
        for (int k = 0; k < N; ++k) result[k] += gradient[k] / count;
      }
    }
  }
  storeLanes(result, dx + inputs + (int64_t{p.row} * w.width + p.column) * w.channels);
}

Window windowOf(const char* name, const Pool2dArguments& a) {
  const auto small = [&](int64_t value) {
    if (value < 0 || value > 0x3fffffff) throw Error(name, "expected extents below 2^30, got " + std::to_string(value));
    return static_cast<int>(value);
  };
  Window w{small(a.input.height), small(a.input.width), small(a.input.channels), small(a.outHeight), small(a.outWidth),
           {}, {}, {}, {}, a.countIncludePad};
  small(a.input.plane());
  for (int i = 0; i < 2; ++i) {
    w.kernel[i] = small(a.kernel[i]);
    w.stride[i] = small(a.stride[i]);
    w.padding[i] = small(a.padding[i]);
    w.dilation[i] = small(a.dilation[i]);
  }
  return w;
}

Shape3 shapeOf(const char* name, int64_t rows, int64_t columns, int64_t channels, const Tile& tile, int lanes) {
  return {dim3(blocks(name, rows), blocks(name, divideUp(columns, tile.rows), 65535),
               blocks(name, tile.across(channels, lanes), 65535)),
          dim3(threads)};
}

template <bool Max>
void forward(const char* name, Stream stream, const Pool2dArguments& a) {
  const Window w = windowOf(name, a);
  const int64_t rows = a.input.batch * a.outHeight;
  if (rows * a.outWidth * a.input.channels == 0) return;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Tile tile = Tile::of(a.input.channels, N, threads);
      launch(name, stream, shapeOf(name, rows, a.outWidth, a.input.channels, tile, N), poolKernel<T, N, Max>,
             static_cast<const T*>(a.x), static_cast<T*>(a.y), w, tile);
    };
    withLanes<T>(a.input.channels, with, a.x, a.y);
  });
}

template <bool Max>
void backward(const char* name, Stream stream, const Pool2dGradientArguments& a) {
  const Pool2dArguments& f = a.forward;
  const Window w = windowOf(name, f);
  if (f.input.size() == 0) return;
  withFloat(name, f.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Tile tile = Tile::of(f.input.channels, N, threads);
      launch(name, stream, shapeOf(name, f.input.batch * f.input.height, f.input.width, f.input.channels, tile, N),
             poolGradientKernel<T, N, Max>, static_cast<const T*>(f.x), static_cast<const T*>(a.dy), static_cast<T*>(a.dx),
             w, tile);
    };
    withLanes<T>(f.input.channels, with, f.x, a.dy, a.dx);
  });
}

}  // namespace

void launchMaxPool2d(Stream stream, const Pool2dArguments& arguments) { forward<true>("max_pool2d", stream, arguments); }
void launchAvgPool2d(Stream stream, const Pool2dArguments& arguments) { forward<false>("avg_pool2d", stream, arguments); }
void launchMaxPool2dGradient(Stream stream, const Pool2dGradientArguments& arguments) {
  backward<true>("max_pool2d_gradient", stream, arguments);
}
void launchAvgPool2dGradient(Stream stream, const Pool2dGradientArguments& arguments) {
  backward<false>("avg_pool2d_gradient", stream, arguments);
}

}  // namespace seresnet::cuda
