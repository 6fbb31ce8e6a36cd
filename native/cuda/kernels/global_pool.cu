#include "global_pool.h"

#include "channelwise.h"

namespace seresnet::cuda {

namespace {

// A block sums the pixels of one image over a tile of channels.
// Moves x once, one number an image and channel. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(1024)
    globalPoolKernel(const T* x, T* y, int64_t plane, int64_t channels, Tile tile, int64_t across, float divisor) {
  DYNAMIC_SHARED(float, scratch);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x / across;
  const int64_t channel = (blockIdx.x % across * tile.columns + thread % tile.columns) * N;
  const bool inside = channel < channels;
  float sum[N] = {};
  for (int64_t row = thread / tile.columns; inside && row < plane; row += tile.rows) {
    float value[N];
    loadLanes(x + (image * plane + row) * channels + channel, value);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += value[i];
  }
  sumRows(sum, tile, scratch);
  if (thread >= tile.columns || !inside) return;
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] /= divisor;
  storeLanes(sum, y + image * channels + channel);
}

}  // namespace

void launchGlobalPool(Stream stream, const GlobalPoolArguments& a) {
  const char* name = "global_pool";
  const auto& [batch, height, width, channels] = a.images;
  if (batch * channels == 0) return;
  const int64_t plane = height * width;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&, channels = channels, batch = batch](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      // few blocks, a small batch's, get more threads each; none more than its shared memory has room for
      const Limits limit = limits();
      const bool few = batch * Tile::of(channels, N, 256).across(channels, N) < 2 * limit.processors;
      int threads = few ? 1024 : 256;
      while (threads > 32 && int64_t{sizeof(float)} * N * threads > limit.sharedPerBlock) threads /= 2;
      const Tile tile = Tile::of(channels, N, threads);
      const int64_t across = tile.across(channels, N);
      launch(name, stream, {dim3(blocks(name, batch * across)), dim3(threads), sizeof(float) * N * threads},
             globalPoolKernel<T, N>, static_cast<const T*>(a.x), static_cast<T*>(a.y), plane, channels, tile, across,
             a.sum ? 1.F : static_cast<float>(plane));
    };
    withLanes<T>(channels, with, a.x, a.y);
  });
}

}  // namespace seresnet::cuda
