#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// y [batch, height, width, outChannels] in dtype `to` = x * scale[channel] + shift[channel] (without them: x), with zeros in
// the channels past x's. x is [batch, channels, height, width], or channels-last itself (decoded images) with
// `channelsLast`, in a float dtype or uint8. `images.channels` are x's. Weights [O, I, kh, kw] become [O, kh, kw, I] likewise.
struct ToChannelsLastArguments {
  const void* x = nullptr;
  DType from = DType::float32;
  bool channelsLast = false;
  void* y = nullptr;
  DType to = DType::float32;
  Images images;
  int64_t outChannels = 0;  // at least images.channels
  Vector scale, shift;      // optional
};
void launchToChannelsLast(Stream stream, const ToChannelsLastArguments& arguments);

// The way back: y [batch, channels, height, width] of the first `images.channels` of x's `inChannels`. Float dtypes.
struct ToChannelsFirstArguments {
  const void* x = nullptr;
  DType from = DType::float32;
  int64_t inChannels = 0;  // at least images.channels
  void* y = nullptr;
  DType to = DType::float32;
  Images images;
};
void launchToChannelsFirst(Stream stream, const ToChannelsFirstArguments& arguments);

}  // namespace seresnet::cuda
