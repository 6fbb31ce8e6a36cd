#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace seresnet::image {

// 8-bit samples, row by row, `channels` a pixel; not owned.
struct Samples {
  const uint8_t* data = nullptr;
  size_t width = 0;
  size_t height = 0;
  size_t channels = 0;
};

// For each output position of one axis: the first source position, how many there are, and their weights in units of 2^-22,
// `stride` of them a position. lib/image/resize.ts computes them.
struct Taps {
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<int32_t> weights;
  size_t stride = 0;

  size_t length() const { return first.size(); }
};

// A resized image, [down, across, channels]. Two passes in 32-bit integers, each rounded to 8 bits, as Pillow's
// Image.resize: `across` first, then `down`. They run along the rows and the columns of the image; `transposed`, for images
// that are stored on their side, along its columns and its rows. 1 and 3 channels. The taps must be inside the image. The
// bytes are the same with and without `vectors`, which are AVX2's where the CPU has it.
std::vector<uint8_t> resample(const Samples& image, const Taps& across, const Taps& down, bool transposed, bool vectors);

}  // namespace seresnet::image
