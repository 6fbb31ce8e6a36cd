#include "linear_squeeze.h"

#include "cpu/device/dnnl_adapter.h"
#include "cpu/ops/squeeze_excite.h"

namespace seresnet::cpu {

namespace {

constexpr int64_t strip = 64;  // channels at a time
constexpr int64_t readAhead = 16;  // gates that may be read behind the last, for weights that only pad

// The input's indices that a tap of the kernel meets along one dim: [first, last).
struct Range {
  int64_t first, last;
};

Range metBy(int64_t tap, int64_t padding, int64_t dilation, int64_t in, int64_t out) {
  const int64_t offset = tap * dilation - padding;
  const int64_t first = std::clamp<int64_t>(offset, 0, in);
  return {first, std::clamp<int64_t>(offset + out, first, in)};
}

SERESNET_CLONES void add(const float* x, float* sums, int64_t count) {
  for (int64_t c = 0; c < count; ++c) sums[c] += x[c];
}

SERESNET_CLONES void subtract(const float* x, float* sums, int64_t count) {
  for (int64_t c = 0; c < count; ++c) sums[c] -= x[c];
}

// sums [taps, C] of one image, channels [from, from + count): what each tap sees of the image in all its windows.
void sumTaps(const LinearSqueeze& s, const float* image, int64_t from, int64_t count, float* sums) {
  for (int64_t tap = 0; tap < s.taps(); ++tap) std::fill_n(sums + tap * s.channels + from, count, 0.F);
  for (int64_t row = 0; row < s.height; ++row) {
    const float* pixels = image + row * s.width * s.channels + from;
    float whole[strip] = {};
    addRows(pixels, s.width, s.channels, count, whole);
    for (int64_t j = 0; j < s.kernel[1]; ++j) {
      const Range columns = metBy(j, s.padding[1], s.dilation[1], s.width, s.outWidth);
      float met[strip];
      if (columns.first == columns.last) continue;
      std::copy_n(whole, count, met);
      for (int64_t column = 0; column < columns.first; ++column) subtract(pixels + column * s.channels, met, count);
      for (int64_t column = columns.last; column < s.width; ++column)
        subtract(pixels + column * s.channels, met, count);
      for (int64_t i = 0; i < s.kernel[0]; ++i) {
        const Range rows = metBy(i, s.padding[0], s.dilation[0], s.height, s.outHeight);
        if (row < rows.first || row >= rows.last) continue;
        add(met, sums + (i * s.kernel[1] + j) * s.channels + from, count);
      }
    }
  }
}

}  // namespace

size_t LinearSqueeze::workSize() const {
  return static_cast<size_t>(images * (outputs + hidden + taps() * channels) + readAhead);
}

std::shared_ptr<HostMemory> LinearSqueeze::foldedWeights(const float* weight, const float* w1) const {
  const int64_t depth = taps() * channels;
  const HostMemory sorted(static_cast<size_t>(outputs * depth) * sizeof(float));  // [O, taps, C]
  auto* to = sorted.data<float>();
  const float mean = 1.F / static_cast<float>(outHeight * outWidth);
  parallel(outputs, 1, [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; ++o)
      for (int64_t tap = 0; tap < taps(); ++tap)
        for (int64_t c = 0; c < channels; ++c)
          to[o * depth + tap * channels + c] = weight[o * depth + c * taps() + tap] * mean;
  });
  auto folded = std::make_shared<HostMemory>(static_cast<size_t>(hidden * depth) * sizeof(float));
  multiply(false, hidden, depth, outputs, w1, to, folded->data<float>());
  return folded;
}

std::shared_ptr<HostMemory> LinearSqueeze::foldedBias(const float* bias, const float* w1, const float* b1) const {
  auto folded = std::make_shared<HostMemory>(static_cast<size_t>(hidden) * sizeof(float));
  for (int64_t r = 0; r < hidden; ++r)
    folded->data<float>()[r] = b1[r] + (bias == nullptr ? 0.F : dot(w1 + r * outputs, bias, outputs));
  return folded;
}

void LinearSqueeze::run(const float* x, const float* weights, const float* bias, const float* w2, const float* b2,
                        float* work) const {
  float* gates = work;
  float* excited = gates + images * outputs + readAhead;
  float* sums = excited + images * hidden;
  std::fill_n(gates + images * outputs, readAhead, 0.F);
  const int64_t strips = (channels + strip - 1) / strip;
  parallel(images * strips, std::max<int64_t>(1, 8192 / (height * width * strip)), [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t image = at / strips;
      const int64_t from = at % strips * strip;
      sumTaps(*this, x + image * height * width * channels, from, std::min(strip, channels - from),
              sums + image * taps() * channels);
    }
  });
  connect(images, hidden, taps() * channels, sums, weights, bias, excited, reluOf);
  connect(images, outputs, hidden, excited, w2, b2, gates, sigmoidOf);
}

}  // namespace seresnet::cpu
