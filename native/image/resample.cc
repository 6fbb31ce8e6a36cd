#include "resample.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)
#define SERESNET_AVX2 __attribute__((target("avx2")))
#include <immintrin.h>
#endif

namespace seresnet::image {

namespace {

constexpr int precision = 22;
constexpr int32_t half = 1 << (precision - 1);

uint8_t clip(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255)); }

// Sums wrap around as JavaScript's do.
int32_t plus(int32_t sum, int32_t sample, int32_t weight) {
  return static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(sample) * static_cast<uint32_t>(weight));
}

// One row along itself.
void alongScalar(const uint8_t* row, size_t channels, const Taps& taps, uint8_t* out) {
  for (size_t x = 0; x < taps.length(); ++x) {
    const uint8_t* from = row + static_cast<size_t>(taps.first[x]) * channels;
    const int32_t* weights = &taps.weights[x * taps.stride];
    for (size_t c = 0; c < channels; ++c) {
      int32_t sum = half;
      for (int32_t k = 0; k < taps.count[x]; ++k) sum = plus(sum, from[static_cast<size_t>(k) * channels + c], weights[k]);
      out[x * channels + c] = clip(sum);
    }
  }
}

// `count` rows of `length` bytes, `step` apart, into one.
void acrossScalar(const uint8_t* rows, size_t step, const int32_t* weights, int32_t count, size_t length, uint8_t* out) {
  constexpr size_t block = 1024;
  std::array<int32_t, block> sums;
  for (size_t from = 0; from < length; from += block) {
    const size_t here = std::min(block, length - from);
    std::fill_n(sums.begin(), here, half);
    for (int32_t k = 0; k < count; ++k) {
      const uint8_t* row = rows + static_cast<size_t>(k) * step + from;
      for (size_t i = 0; i < here; ++i) sums[i] = plus(sums[i], row[i], weights[k]);
    }
    for (size_t i = 0; i < here; ++i) out[from + i] = clip(sums[i]);
  }
}

#ifdef SERESNET_AVX2

// A weight as high * 2^12 + low, two numbers of 16 bits, so that one instruction multiplies and adds pairs of them with
// samples. Their sums may wrap around: what counts is the sum of both, which does not.
constexpr int lowBits = 12;

struct Halves {
  std::vector<int16_t> low, high;  // `stride` a position, zeros behind the weights
  size_t stride = 0;

  Halves(const Taps& taps, size_t group) : stride((taps.stride + group - 1) / group * group) {
    low.resize(taps.length() * stride);
    high.resize(low.size());
    for (size_t i = 0; i < taps.length(); ++i)
      for (int32_t k = 0; k < taps.count[i]; ++k) {
        const int32_t weight = taps.weights[i * taps.stride + static_cast<size_t>(k)];
        low[i * stride + static_cast<size_t>(k)] = static_cast<int16_t>(weight & ((1 << lowBits) - 1));
        high[i * stride + static_cast<size_t>(k)] = static_cast<int16_t>(weight >> lowBits);
      }
  }
};

constexpr size_t overread = 16;  // bytes that the passes along rows may read behind a row
constexpr size_t together = 4;   // rows that share the loading of weights

SERESNET_AVX2 inline __m256i joined(__m256i low, __m256i high) {
  return _mm256_srai_epi32(_mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, lowBits), low), _mm256_set1_epi32(half)),
                           precision);
}

// Four weights of 16 bits, the first two for the lower lane and the last two for the upper one.
SERESNET_AVX2 inline __m256i pairs(const int16_t* weights) {
  int64_t four;
  std::memcpy(&four, weights, sizeof four);
  return _mm256_permutevar8x32_epi32(_mm256_set1_epi64x(four), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

// Three channels: the lower lane takes the first two of four pixels, the upper lane the last two.
SERESNET_AVX2 void alongRgb(const std::array<const uint8_t*, together>& rows, const Taps& taps, const Halves& halves,
                            const std::array<uint8_t*, together>& out) {
  constexpr char o = -1;
  const __m256i order = _mm256_setr_epi8(0, o, 3, o, 1, o, 4, o, 2, o, 5, o, o, o, o, o,  //
                                         6, o, 9, o, 7, o, 10, o, 8, o, 11, o, o, o, o, o);
  for (size_t x = 0; x < taps.length(); ++x) {
    const size_t from = static_cast<size_t>(taps.first[x]) * 3;
    const auto count = static_cast<size_t>(taps.count[x]);
    __m256i low[together], high[together];
    for (size_t r = 0; r < together; ++r) low[r] = high[r] = _mm256_setzero_si256();
    for (size_t k = 0; k < count; k += 4) {
      const __m256i weightLow = pairs(&halves.low[x * halves.stride + k]);
      const __m256i weightHigh = pairs(&halves.high[x * halves.stride + k]);
      for (size_t r = 0; r < together; ++r) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + from + k * 3));
        const __m256i samples = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), order);
        low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(samples, weightLow));
        high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(samples, weightHigh));
      }
    }
    for (size_t r = 0; r < together; ++r) {
      const __m128i sumLow = _mm_add_epi32(_mm256_castsi256_si128(low[r]), _mm256_extracti128_si256(low[r], 1));
      const __m128i sumHigh = _mm_add_epi32(_mm256_castsi256_si128(high[r]), _mm256_extracti128_si256(high[r], 1));
      const __m128i sum = _mm256_castsi256_si128(joined(_mm256_castsi128_si256(sumLow), _mm256_castsi128_si256(sumHigh)));
      const __m128i words = _mm_packs_epi32(sum, sum);
      const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
      std::memcpy(out[r] + x * 3, &pixel, 3);
    }
  }
}

// One channel, sixteen pixels at a time.
SERESNET_AVX2 void alongGrey(const uint8_t* row, const Taps& taps, const Halves& halves, uint8_t* out) {
  for (size_t x = 0; x < taps.length(); ++x) {
    const uint8_t* from = row + taps.first[x];
    __m256i low = _mm256_setzero_si256(), high = low;
    for (size_t k = 0; k < static_cast<size_t>(taps.count[x]); k += 16) {
      const __m256i samples = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
      const size_t at = x * halves.stride + k;
      low = _mm256_add_epi32(low, _mm256_madd_epi16(samples, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&halves.low[at]))));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(samples, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&halves.high[at]))));
    }
    const __m256i sums = _mm256_add_epi32(_mm256_slli_epi32(high, lowBits), low);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b01001110));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b10110001));
    out[x] = clip(static_cast<int32_t>(static_cast<uint32_t>(_mm_cvtsi128_si32(sum)) + static_cast<uint32_t>(half)));
  }
}

SERESNET_AVX2 inline __m256i widened(const uint8_t* bytes) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// Bytes of rows into one row, thirty-two at a time; a pair of rows at a time.
SERESNET_AVX2 void acrossAvx2(const uint8_t* rows, size_t step, const int32_t* weights, int32_t count, size_t length,
                              uint8_t* out) {
  size_t at = 0;
  for (; at + 32 <= length; at += 32) {
    __m256i low[4], high[4];
    for (int i = 0; i < 4; ++i) low[i] = high[i] = _mm256_setzero_si256();
    for (int32_t k = 0; k < count; k += 2) {
      const bool single = k + 1 == count;
      const int32_t second = single ? 0 : weights[k + 1];
      const uint8_t* a = rows + static_cast<size_t>(k) * step + at;
      const uint8_t* b = single ? a : a + step;
      constexpr int32_t mask = (1 << lowBits) - 1;
      const __m256i weightLow = _mm256_set1_epi32((weights[k] & mask) | (second & mask) << 16);
      const __m256i weightHigh =
          _mm256_set1_epi32(static_cast<int32_t>(static_cast<uint16_t>(weights[k] >> lowBits) |
                                                 static_cast<uint32_t>(static_cast<uint16_t>(second >> lowBits)) << 16));
      for (int part = 0; part < 2; ++part) {
        const __m256i first = widened(a + 16 * part), next = widened(b + 16 * part);
        const __m256i even = _mm256_unpacklo_epi16(first, next), odd = _mm256_unpackhi_epi16(first, next);
        low[2 * part] = _mm256_add_epi32(low[2 * part], _mm256_madd_epi16(even, weightLow));
        high[2 * part] = _mm256_add_epi32(high[2 * part], _mm256_madd_epi16(even, weightHigh));
        low[2 * part + 1] = _mm256_add_epi32(low[2 * part + 1], _mm256_madd_epi16(odd, weightLow));
        high[2 * part + 1] = _mm256_add_epi32(high[2 * part + 1], _mm256_madd_epi16(odd, weightHigh));
      }
    }
    const __m256i words0 = _mm256_packs_epi32(joined(low[0], high[0]), joined(low[1], high[1]));
    const __m256i words1 = _mm256_packs_epi32(joined(low[2], high[2]), joined(low[3], high[3]));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(words0, words1), 0b11011000);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), bytes);
  }
  acrossScalar(rows + at, step, weights, count, length - at, out + at);
}

bool hasAvx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

#endif

// Rows [firstRow, firstRow + rows) along themselves.
std::vector<uint8_t> along(const Samples& image, const Taps& taps, size_t firstRow, size_t rows,
                           [[maybe_unused]] bool vectors) {
  const size_t channels = image.channels;
  const size_t pitch = image.width * channels;
  const size_t width = taps.length() * channels;
  std::vector<uint8_t> out(rows * width);
  const auto row = [&](size_t y) { return image.data + (firstRow + y) * pitch; };
#ifdef SERESNET_AVX2
  if (vectors && hasAvx2()) {
    const Halves halves(taps, channels == 3 ? 4 : 16);
    // behind the image's last row there is nothing to be read
    std::vector<uint8_t> last(pitch + overread);
    const size_t lastRow = image.height - 1 - firstRow;
    if (lastRow < rows) std::copy_n(row(lastRow), pitch, last.data());
    const auto padded = [&](size_t y) { return y == lastRow ? last.data() : row(y); };
    if (channels == 1) {
      for (size_t y = 0; y < rows; ++y) alongGrey(padded(y), taps, halves, &out[y * width]);
      return out;
    }
    for (size_t y = 0; y < rows; y += together) {
      std::array<const uint8_t*, together> from{};
      std::array<uint8_t*, together> to{};
      for (size_t r = 0; r < together; ++r) {
        const size_t here = std::min(y + r, rows - 1);  // the last ones may be the same row
        from[r] = padded(here);
        to[r] = &out[here * width];
      }
      alongRgb(from, taps, halves, to);
    }
    return out;
  }
#endif
  for (size_t y = 0; y < rows; ++y) alongScalar(row(y), channels, taps, &out[y * width]);
  return out;
}

// Columns [firstColumn, firstColumn + columns) of an image whose first row is `firstRow`, across its rows.
std::vector<uint8_t> across(const Samples& image, const Taps& taps, size_t firstRow, size_t firstColumn, size_t columns,
                            [[maybe_unused]] bool vectors) {
  const size_t pitch = image.width * image.channels;
  const size_t length = columns * image.channels;
  std::vector<uint8_t> out(taps.length() * length);
  for (size_t y = 0; y < taps.length(); ++y) {
    const uint8_t* rows =
        image.data + (static_cast<size_t>(taps.first[y]) - firstRow) * pitch + firstColumn * image.channels;
    const int32_t* weights = &taps.weights[y * taps.stride];
#ifdef SERESNET_AVX2
    if (vectors && hasAvx2()) {
      acrossAvx2(rows, pitch, weights, taps.count[y], length, &out[y * length]);
      continue;
    }
#endif
    acrossScalar(rows, pitch, weights, taps.count[y], length, &out[y * length]);
  }
  return out;
}

// The source positions that taps need: the first of them, and how many there are.
std::pair<size_t, size_t> needed(const Taps& taps) {
  int32_t least = taps.first[0], end = 0;
  for (size_t i = 0; i < taps.length(); ++i) {
    least = std::min(least, taps.first[i]);
    end = std::max(end, taps.first[i] + taps.count[i]);
  }
  return {static_cast<size_t>(least), static_cast<size_t>(end - least)};
}

Taps shifted(Taps taps, size_t by) {
  for (int32_t& first : taps.first) first -= static_cast<int32_t>(by);
  return taps;
}

}  // namespace

std::vector<uint8_t> resample(const Samples& image, const Taps& horizontal, const Taps& vertical, bool transposed,
                              bool vectors) {
  const size_t channels = image.channels;
  const size_t width = horizontal.length(), height = vertical.length();
  const auto [first, extent] = needed(vertical);
  if (!transposed) {
    const std::vector<uint8_t> narrow = along(image, horizontal, first, extent, vectors);
    return across({narrow.data(), width, extent, channels}, vertical, first, 0, width, vectors);
  }
  // the image lies on its side: what is horizontal upright runs across its rows
  const std::vector<uint8_t> narrow = across(image, horizontal, 0, first, extent, vectors);
  const std::vector<uint8_t> turned =
      along({narrow.data(), extent, width, channels}, shifted(vertical, first), 0, width, vectors);
  std::vector<uint8_t> out(turned.size());
  for (size_t y = 0; y < height; ++y)
    for (size_t x = 0; x < width; ++x)
      std::copy_n(&turned[(x * height + y) * channels], channels, &out[(y * width + x) * channels]);
  return out;
}

}  // namespace seresnet::image
