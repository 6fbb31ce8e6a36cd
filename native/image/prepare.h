#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "resample.h"

namespace seresnet::image {

// What decoded samples mean.
enum class Colours {
  plain,  // grey, grey with alpha, RGB or RGB with alpha, which is dropped
  cmyk,
  gif,    // plain, on a background where the frame is transparent or draws nothing
};

struct Box {
  int64_t left = 0, top = 0, width = 0, height = 0;
};

struct Canvas {
  size_t side = 0, left = 0, top = 0;
  std::array<uint8_t, 3> fill{};
};

// How decoded samples become an image for a network; lib/image/prepare.ts says it, checked for what memory safety needs.
struct Preparation {
  Samples samples;
  Colours colours = Colours::plain;
  Box drawn;                             // of a GIF: the part of the canvas that its frame draws
  std::array<uint8_t, 3> background{};   // and what is behind it
  Taps across, down;
  bool transposed = false;
  size_t channels = 3;                   // of the result: 1 or 3
  std::optional<Canvas> canvas;          // the square that the resized image is put on
  bool vectors = true;                   // false for tests: as on a CPU without AVX2
};

// The image, 8-bit samples, [height, width, channels].
std::vector<uint8_t> prepare(const Preparation& preparation);

// The same in planes, [channels, height, width]: each sample what `table` has for it, 256 entries a channel.
std::vector<float> normalized(const std::vector<uint8_t>& image, size_t channels, const std::vector<float>& table);

}  // namespace seresnet::image
