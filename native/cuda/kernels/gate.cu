#include "gate.h"

#include "channelwise.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

// A block takes some channels of one image, all its pixels.
// Moves x, dy, where it is given the activated, dx and where it is wanted the residual's gradient once. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    gateGradientKernel(GateGradientArguments a, int64_t plane, int64_t channels, Tile tile, int64_t across) {
  SHARED(float, scratch, threads * N);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x / across;
  const int64_t channel = (blockIdx.x % across * tile.columns + thread % tile.columns) * N;
  const bool inside = channel < channels;
  float gate[N] = {}, sum[N] = {};
  if (inside) loadLanes(static_cast<const T*>(a.gate) + image * channels + channel, gate);
  for (int64_t row = thread / tile.columns; inside && row < plane; row += tile.rows) {
    const int64_t place = (image * plane + row) * channels + channel;
    float value[N], gradient[N];
    loadLanes(static_cast<const T*>(a.x) + place, value);
    loadLanes(static_cast<const T*>(a.dy) + place, gradient);
    if (a.activated != nullptr) {
      float y[N];
      loadLanes(static_cast<const T*>(a.activated) + place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) gradient[i] = reluGradientOf(y[i], gradient[i]);
    }
    if (a.residual != nullptr) storeLanes(gradient, static_cast<T*>(a.residual) + place);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] += gradient[i] * value[i];
      gradient[i] *= gate[i];
    }
    storeLanes(gradient, static_cast<T*>(a.dx) + place);
  }
  sumRows(sum, tile, scratch);
  if (thread < tile.columns && inside) storeLanes(sum, static_cast<T*>(a.dgate) + image * channels + channel);
}

}  // namespace

void launchGateGradient(Stream stream, const GateGradientArguments& a) {
  const char* name = "gate_gradient";
  if (a.images.size() == 0) return;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      Tile tile = Tile::of(a.images.channels, N, threads);
      // few channels an image: narrower tiles fill the device, of at least two sectors of memory
      while (tile.columns * N * sizeof(T) > 64 && a.images.batch * tile.across(a.images.channels, N) < residentBlocks(threads))
        tile = {tile.columns / 2, tile.rows * 2};
      const int64_t across = tile.across(a.images.channels, N);
      launch(name, stream, {dim3(blocks(name, a.images.batch * across)), dim3(threads)}, gateGradientKernel<T, N>, a,
             a.images.plane(), a.images.channels, tile, across);
    };
    withLanes<T>(a.images.channels, with, a.x, a.dy, a.activated, a.gate, a.dx, a.residual, a.dgate);
  });
}

}  // namespace seresnet::cuda
