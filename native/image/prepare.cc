#include "prepare.h"

#include <algorithm>

namespace seresnet::image {

namespace {

// Rounded, as Pillow's MULDIV255.
uint8_t divideBy255(int product) {
  const int shifted = product + 128;
  return static_cast<uint8_t>((shifted + (shifted >> 8)) >> 8);
}

// What Pillow's convert("L") makes of RGB: ITU-R 601 weights in units of 2^-16.
uint8_t greyOf(uint8_t red, uint8_t green, uint8_t blue) {
  return static_cast<uint8_t>((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
}

// Gives `take` the colour of each pixel in turn.
template <typename Take>
void eachColour(const Preparation& given, Take&& take) {
  const auto& [data, width, height, channels] = given.samples;
  const uint8_t* at = data;
  switch (given.colours) {
    case Colours::cmyk:
      for (size_t i = 0; i < width * height; ++i, at += channels) {
        const int light = 255 - at[3];
        const auto ink = [&](int c) { return static_cast<uint8_t>(light - divideBy255(at[c] * light)); };
        take(ink(0), ink(1), ink(2));
      }
      return;
    case Colours::gif: {
      const auto& [red, green, blue] = given.background;
      const auto& [left, top, wide, high] = given.drawn;
      for (int64_t y = 0; y < static_cast<int64_t>(height); ++y)
        for (int64_t x = 0; x < static_cast<int64_t>(width); ++x, at += channels) {
          const bool isDrawn = x >= left && y >= top && x < left + wide && y < top + high && (channels < 4 || at[3] > 0);
          if (!isDrawn) take(red, green, blue);
          else if (channels < 3) take(at[0], at[0], at[0]);
          else take(at[0], at[1], at[2]);
        }
      return;
    }
    case Colours::plain:
      for (size_t i = 0; i < width * height; ++i, at += channels) {
        if (channels < 3) take(at[0], at[0], at[0]);
        else take(at[0], at[1], at[2]);
      }
  }
}

// The samples as one or three channels. `own` holds them where they are not what was given.
Samples converted(const Preparation& given, std::vector<uint8_t>& own) {
  const auto& [data, width, height, channels] = given.samples;
  const bool isPlain = given.colours == Colours::plain;
  if (isPlain && (channels == 1 || (channels == 3 && given.channels == 3))) return given.samples;
  const bool isGrey = given.channels == 1 || (isPlain && channels < 3);  // grey's grey is itself
  own.resize(width * height * (isGrey ? 1 : 3));
  uint8_t* to = own.data();
  if (isGrey) eachColour(given, [&](uint8_t red, uint8_t green, uint8_t blue) { *to++ = greyOf(red, green, blue); });
  else
    eachColour(given, [&](uint8_t red, uint8_t green, uint8_t blue) {
      *to++ = red;
      *to++ = green;
      *to++ = blue;
    });
  return {own.data(), width, height, isGrey ? size_t{1} : size_t{3}};
}

std::vector<uint8_t> tripled(const std::vector<uint8_t>& grey) {
  std::vector<uint8_t> out(grey.size() * 3);
  for (size_t i = 0; i < grey.size(); ++i) std::fill_n(&out[i * 3], 3, grey[i]);
  return out;
}

std::vector<uint8_t> onCanvas(const std::vector<uint8_t>& image, size_t width, size_t channels, const Canvas& canvas) {
  std::vector<uint8_t> out(canvas.side * canvas.side * channels);
  for (size_t i = 0; i < out.size(); ++i) out[i] = canvas.fill[i % channels];
  const size_t row = width * channels;
  for (size_t y = 0; y * row < image.size(); ++y)
    std::copy_n(&image[y * row], row, &out[((y + canvas.top) * canvas.side + canvas.left) * channels]);
  return out;
}

}  // namespace

std::vector<uint8_t> prepare(const Preparation& given) {
  std::vector<uint8_t> own;
  const Samples image = converted(given, own);
  std::vector<uint8_t> out = resample(image, given.across, given.down, given.transposed, given.vectors);
  if (image.channels < given.channels) out = tripled(out);
  if (given.canvas) out = onCanvas(out, given.across.length(), given.channels, *given.canvas);
  return out;
}

std::vector<float> normalized(const std::vector<uint8_t>& image, size_t channels, const std::vector<float>& table) {
  const size_t pixels = image.size() / channels;
  std::vector<float> out(image.size());
  for (size_t c = 0; c < channels; ++c)
    for (size_t i = 0; i < pixels; ++i) out[c * pixels + i] = table[c * 256 + image[i * channels + c]];
  return out;
}

}  // namespace seresnet::image
