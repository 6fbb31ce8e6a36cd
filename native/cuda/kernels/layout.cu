#include "layout.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int side = 32;  // a tile is side x side elements, moved by side x lines threads
constexpr int lines = 8;
constexpr int threads = side * lines;

template <typename T>
__device__ __forceinline__ float valueOf(T value) {
  if constexpr (std::is_integral_v<T>) return static_cast<float>(value);
  else return toFloat(value);
}

// Transposes [channels, plane] of an image into [plane, outChannels] through shared memory, so that both sides are read
// and written in rows. The extra column keeps a tile's columns in different banks.
// Moves x once, y once with the zeros behind its channels. Bound: memory.
template <typename From, typename To>
__global__ void __launch_bounds__(threads)
    toChannelsLastKernel(const From* x, To* y, int64_t plane, int64_t channels, int64_t outChannels, int64_t across,
                         Vector scale, Vector shift) {
  SHARED(float, tile, side * (side + 1));
  const int along = static_cast<int>(threadIdx.x) % side, line = static_cast<int>(threadIdx.x) / side;
  const int64_t image = blockIdx.x / across;
  const int64_t firstPixel = blockIdx.x % across * side, firstChannel = int64_t{blockIdx.y} * side;
  for (int i = line; i < side; i += lines) {
    const int64_t channel = firstChannel + i, pixel = firstPixel + along;
    float value = 0;
    if (channel < channels && pixel < plane)
      value = valueOf(x[(image * channels + channel) * plane + pixel]) * at(scale, channel, 1.F) + at(shift, channel, 0.F);
    tile[i * (side + 1) + along] = value;
  }
  __syncthreads();
  for (int i = line; i < side; i += lines) {
    const int64_t channel = firstChannel + along, pixel = firstPixel + i;
    if (channel < outChannels && pixel < plane)
      y[(image * plane + pixel) * outChannels + channel] = fromFloat<To>(tile[along * (side + 1) + i]);
  }
}

// Moves x and y once. Bound: memory.
template <typename From, typename To>
__global__ void __launch_bounds__(threads)
    toChannelsFirstKernel(const From* x, To* y, int64_t plane, int64_t channels, int64_t inChannels, int64_t across) {
  SHARED(float, tile, side * (side + 1));
  const int along = static_cast<int>(threadIdx.x) % side, line = static_cast<int>(threadIdx.x) / side;
  const int64_t image = blockIdx.x / across;
  const int64_t firstPixel = blockIdx.x % across * side, firstChannel = int64_t{blockIdx.y} * side;
  for (int i = line; i < side; i += lines) {
    const int64_t channel = firstChannel + along, pixel = firstPixel + i;
    if (channel < channels && pixel < plane)
      tile[i * (side + 1) + along] = toFloat(x[(image * plane + pixel) * inChannels + channel]);
  }
  __syncthreads();
  for (int i = line; i < side; i += lines) {
    const int64_t channel = firstChannel + i, pixel = firstPixel + along;
    if (channel < channels && pixel < plane)
      y[(image * channels + channel) * plane + pixel] = fromFloat<To>(tile[along * (side + 1) + i]);
  }
}

// Images that are channels-last already.
// Moves x once, y once with the zeros behind its channels. Bound: memory.
template <typename From, typename To>
__global__ void __launch_bounds__(threads)
    padChannelsKernel(const From* x, To* y, int64_t pixels, int64_t channels, int64_t outChannels, Vector scale,
                      Vector shift) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < pixels * outChannels; i += int64_t{gridDim.x} * threads) {
    const int64_t pixel = i / outChannels, channel = i % outChannels;
    float value = 0;
    if (channel < channels)
      value = valueOf(x[pixel * channels + channel]) * at(scale, channel, 1.F) + at(shift, channel, 0.F);
    y[i] = fromFloat<To>(value);
  }
}

// Calls `use` with a tag of a float dtype's type, or of uint8's.
template <typename Use>
void withPixels(const char* name, DType dtype, Use use) {
  if (dtype == DType::uint8) use(TypeTag<uint8_t>{});
  else withFloat(name, dtype, use);
}

}  // namespace

void launchToChannelsLast(Stream stream, const ToChannelsLastArguments& a) {
  const char* name = "to_channels_last";
  const int64_t plane = a.images.plane(), channels = a.images.channels;
  if (a.images.batch * plane * a.outChannels == 0) return;
  if (a.outChannels < channels)
    throw Error(name, "expected at least " + std::to_string(channels) + " channels, got " + std::to_string(a.outChannels));
  withPixels(name, a.from, [&](auto from) {
    withFloat(name, a.to, [&](auto to) {
      using From = typename decltype(from)::Type;
      using To = typename decltype(to)::Type;
      const auto* x = static_cast<const From*>(a.x);
      auto* y = static_cast<To*>(a.y);
      if (a.channelsLast) {
        launch(name, stream, {dim3(stridedBlocks(a.images.rows() * a.outChannels, threads)), dim3(threads)},
               padChannelsKernel<From, To>, x, y, a.images.rows(), channels, a.outChannels, a.scale, a.shift);
        return;
      }
      const int64_t across = divideUp(plane, side);
      launch(name, stream,
             {dim3(blocks(name, a.images.batch * across), blocks(name, divideUp(a.outChannels, side), 65535)), dim3(threads)},
             toChannelsLastKernel<From, To>, x, y, plane, channels, a.outChannels, across, a.scale, a.shift);
    });
  });
}

void launchToChannelsFirst(Stream stream, const ToChannelsFirstArguments& a) {
  const char* name = "to_channels_first";
  if (a.images.size() == 0) return;
  withFloat(name, a.from, [&](auto from) {
    withFloat(name, a.to, [&](auto to) {
      using From = typename decltype(from)::Type;
      using To = typename decltype(to)::Type;
      const int64_t across = divideUp(a.images.plane(), side);
      launch(name, stream,
             {dim3(blocks(name, a.images.batch * across), blocks(name, divideUp(a.images.channels, side), 65535)),
              dim3(threads)},
             toChannelsFirstKernel<From, To>, static_cast<const From*>(a.x), static_cast<To*>(a.y), a.images.plane(),
             a.images.channels, a.inChannels, across);
    });
  });
}

}  // namespace seresnet::cuda
