#include "squeeze_excite.h"

#include "ops.h"
#include "ops/squeeze_excite.h"

namespace seresnet::cpu {

namespace {

struct Sizes {
  int64_t images, channels, plane, hidden;
};

// Pixels: y = x * gate (+ residual) (+ ReLU).
template <typename T>
inline __attribute__((always_inline)) void gateEach(const T* x, const float* gate, const T* residual, bool relu, T* y,
                                                    int64_t pixels, int64_t channels) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const int64_t at = pixel * channels;
    if (residual != nullptr && relu) {
      for (int64_t c = 0; c < channels; ++c) {
        const float value = x[at + c] * gate[c] + residual[at + c];
        y[at + c] = T(value < 0 ? 0 : value);
      }
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) {
      float value = x[at + c] * gate[c];
      if (residual != nullptr) value += residual[at + c];
      y[at + c] = T(relu && value < 0 ? 0 : value);
    }
  }
}

SERESNET_CLONES void gatePixels(const float* x, const float* gate, const float* residual, bool relu, float* y,
                                int64_t pixels, int64_t channels) {
  gateEach(x, gate, residual, relu, y, pixels, channels);
}

SERESNET_CLONES void gatePixels(const Bfloat16* x, const float* gate, const Bfloat16* residual, bool relu, Bfloat16* y,
                                int64_t pixels, int64_t channels) {
  gateEach(x, gate, residual, relu, y, pixels, channels);
}

// pooled [N, C] = mean over the pixels, a strip of channels at a time.
template <typename T>
void pool(const Sizes& s, const T* x, float* pooled) {
  constexpr int64_t strip = 64;
  const int64_t strips = (s.channels + strip - 1) / strip;
  parallel(s.images * strips, std::max<int64_t>(1, 8192 / (s.plane * strip)), [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t image = at / strips;
      const int64_t from = at % strips * strip;
      const int64_t width = std::min(strip, s.channels - from);
      float* sums = pooled + image * s.channels + from;
      std::fill(sums, sums + width, 0.F);
      addRows(x + image * s.plane * s.channels + from, s.plane, s.channels, width, sums);
      for (int64_t c = 0; c < width; ++c) sums[c] /= static_cast<float>(s.plane);
    }
  });
}

template <typename T>
void gateImage(const T* x, const float* gate, const T* residual, bool relu, T* y, int64_t plane, int64_t channels) {
  parallel(plane, std::max<int64_t>(1, 8192 / channels), [&](int64_t first, int64_t last) {
    const int64_t at = first * channels;
    gatePixels(x + at, gate, residual == nullptr ? nullptr : residual + at, relu, y + at, last - first, channels);
  });
}

// Where a step's operands are; residual is -1 where there is none.
struct Places {
  BufferId x, w1, b1, w2, b2, residual, work, y;
};

template <typename T>
void exciteImages(const Sizes& s, const Places& at, bool relu, const Pointers& p) {
  float* pooled = p.at(at.work);
  float* gate = pooled + s.images * s.channels;
  float* excited = gate + s.images * s.channels;
  pool(s, p.at<T>(at.x), pooled);
  connect(s.images, s.hidden, s.channels, pooled, p.at(at.w1), p.at(at.b1), excited, reluOf);
  connect(s.images, s.channels, s.hidden, excited, p.at(at.w2), p.at(at.b2), gate, sigmoidOf);
  const int64_t size = s.plane * s.channels;
  for (int64_t n = 0; n < s.images; ++n)
    gateImage(p.at<T>(at.x) + n * size, gate + n * s.channels,
              at.residual < 0 ? nullptr : p.at<T>(at.residual) + n * size, relu, p.at<T>(at.y) + n * size, s.plane,
              s.channels);
}

}  // namespace

void applyGate(const float* x, const float* gate, const float* residual, bool relu, float* y, int64_t plane,
               int64_t channels) {
  gateImage(x, gate, residual, relu, y, plane, channels);
}

// x [N, C, H, W], W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?: x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)
// (+ residual) (+ ReLU), on channels-last images.
void squeezeExcite(Builder& b) {
  const ops::SqueezeExcite op(b);
  const Shape& x = b.input(0).shape;
  const Sizes s{x[0], x[1], x[2] * x[3], op.hidden};
  const Layout layout = b.rounds() ? Layout::bfloat16 : Layout::channelsLast;
  Places at{};
  at.x = b.read(0, layout);
  at.w1 = b.read(1);
  at.b1 = b.read(2);
  at.w2 = b.read(3);
  at.b2 = b.read(4);
  at.residual = op.residual ? b.read(5, layout) : -1;
  at.work = b.scratch(static_cast<size_t>(s.images * (2 * s.channels + s.hidden)) * sizeof(float));
  at.y = b.write(0, layout);
  if (layout == Layout::bfloat16)
    b.emit("pass bfloat16", [=, relu = op.relu](const Pointers& p) { exciteImages<Bfloat16>(s, at, relu, p); });
  else b.emit("pass", [=, relu = op.relu](const Pointers& p) { exciteImages<float>(s, at, relu, p); });
}

}  // namespace seresnet::cpu
