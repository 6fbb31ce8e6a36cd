#pragma once

#include "lanes.h"

// Passes over [groups, rows, channels] in which every thread keeps to its own channels: what belongs to a channel is read
// once a thread, and no index is divided.
namespace seresnet::cuda {

// In how many parts the rows of each group are cut: enough to fill the device, and more where threads would otherwise take
// more than `rowsPerThread`.
inline int64_t partsOf(int64_t groups, int64_t rows, const Tile& tile, int64_t rowsPerThread) {
  const int64_t steps = divideUp(rows, tile.rows);
  const int64_t filling = divideUp(residentBlocks(tile.rows * tile.columns), groups);
  return std::clamp<int64_t>(std::max(divideUp(steps, rowsPerThread), filling), 1, std::max<int64_t>(steps, 1));
}

// What the values of N channels go through: (x - center) * scale + shift.
template <int N>
struct Affine {
  float center[N], scale[N], shift[N];
};

// y = affine(x) (+ residual) (+ ReLU); setup(group, channel, affine) gives the map of N channels. Two rows are in flight a
// thread.
// Moves x, where it is given the residual, and y once; what belongs to channels once a thread, from caches. Bound: memory.
template <typename T, int N, typename Setup>
__global__ void __launch_bounds__(256)
    channelwiseKernel(const T* x, const T* residual, T* y, int64_t rows, int64_t channels, Tile tile, int64_t parts,
                      bool relu, Setup setup) {
  const int column = static_cast<int>(threadIdx.x) % tile.columns;
  const int64_t channel = (int64_t{blockIdx.y} * tile.columns + column) * N;
  if (channel >= channels) return;
  const int64_t group = blockIdx.x / parts;
  const int64_t start = group * rows * channels + channel;
  Affine<N> affine;
  setup(group, channel, affine);
  const int64_t step = parts * tile.rows;
  for (int64_t row = blockIdx.x % parts * tile.rows + threadIdx.x / tile.columns; row < rows; row += 2 * step) {
    float value[2][N], other[2][N];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (row + k * step >= rows) continue;
      const int64_t at = start + (row + k * step) * channels;
      loadLanes(x + at, value[k]);
      if (residual != nullptr) loadLanes(residual + at, other[k]);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (row + k * step >= rows) continue;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float result = (value[k][i] - affine.center[i]) * affine.scale[i] + affine.shift[i];
        if (residual != nullptr) result += other[k][i];
        value[k][i] = relu ? reluOf(result) : result;
      }
      storeLanes(value[k], y + start + (row + k * step) * channels);
    }
  }
}

template <typename T, typename Setup>
void launchChannelwise(const char* name, Stream stream, const void* x, const void* residual, void* y, int64_t groups,
                       int64_t rows, int64_t channels, bool relu, const Setup& setup) {
  if (groups * rows * channels == 0) return;
  const auto with = [&](auto lanes) {
    constexpr int N = decltype(lanes)::value;
    constexpr int threads = 256;
    const Tile tile = Tile::of(channels, N, threads);
    const int64_t across = tile.across(channels, N);
    const int64_t parts = partsOf(groups * across, rows, tile, 8);
    launch(name, stream, {dim3(blocks(name, groups * parts), blocks(name, across, 65535)), dim3(threads)},
           channelwiseKernel<T, N, Setup>, static_cast<const T*>(x), static_cast<const T*>(residual), static_cast<T*>(y),
           rows, channels, tile, parts, relu, setup);
  };
  withLanes<T>(channels, with, x, residual, y);
}

// Sums over the rows of a block's tile: each thread gives N values, the threads of row 0 get the totals, always added in
// the same order. `scratch`: one float a thread and value.
template <int N>
__device__ __forceinline__ void sumRows(float (&value)[N], const Tile& tile, float* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int half = tile.rows / 2; half > 0; half /= 2) {
    const int row = thread / tile.columns;
    if (row >= half && row < 2 * half)
#pragma unroll
      for (int i = 0; i < N; ++i) scratch[i * static_cast<int>(blockDim.x) + thread] = value[i];
    __syncthreads();
    if (row < half)
#pragma unroll
      for (int i = 0; i < N; ++i)
        value[i] += scratch[i * static_cast<int>(blockDim.x) + thread + half * tile.columns];
    __syncthreads();
  }
}

}  // namespace seresnet::cuda
