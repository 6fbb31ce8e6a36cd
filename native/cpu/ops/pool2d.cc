#include <cmath>
#include <limits>
#include <type_traits>

#include "cpu/loops/bfloat16.h"
#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/pool2d.h"

namespace seresnet::cpu {

namespace {

struct Window {
  int64_t height, width, channels, outH, outW;
  std::vector<int64_t> kernel, stride, padding, dilation;

  explicit Window(const ops::Pool2d& op)
      : height(op.x[2]), width(op.x[3]), channels(op.x[1]), outH(op.y[2]), outW(op.y[3]), kernel(op.kernel),
        stride(op.stride), padding(op.padding), dilation(op.dilation) {}
};

// NaN in either operand is the result, as in the reference.
SERESNET_CLONES void largest(const float* x, float* y, int64_t count) {
  for (int64_t c = 0; c < count; ++c) y[c] = x[c] > y[c] || x[c] != x[c] ? x[c] : y[c];
}

SERESNET_CLONES void largest(const Bfloat16* x, Bfloat16* y, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    const float value = x[c];
    const float most = y[c];
    y[c] = value > most || value != value ? x[c] : y[c];
  }
}

SERESNET_CLONES void addTo(const float* x, float* y, int64_t count) {
  for (int64_t c = 0; c < count; ++c) y[c] += x[c];
}

SERESNET_CLONES void scaleBy(float factor, float* y, int64_t count) {
  for (int64_t c = 0; c < count; ++c) y[c] *= factor;
}

// Calls visit(pixel of x, pixel of y, …) for windows in channels-last images; `visit` gets the window's corner.
template <typename T, typename Visit>
Kernel overWindows(Builder& b, const Window& w, Visit visit) {
  const Layout layout = std::is_same_v<T, float> ? Layout::channelsLast : Layout::bfloat16;
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0, layout);
  const int64_t rows = b.output().shape[0] * w.outH;
  return [=](const Pointers& p) {
    const T* from = p.at<T>(x);
    T* to = p.at<T>(y);
    parallel(rows, std::max<int64_t>(1, 2048 / (w.outW * w.channels + 1)), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const T* image = from + row / w.outH * w.height * w.width * w.channels;
        for (int64_t column = 0; column < w.outW; ++column)
          visit(w, image, row % w.outH * w.stride[0] - w.padding[0], column * w.stride[1] - w.padding[1],
                to + (row * w.outW + column) * w.channels);
      }
    });
  };
}

template <typename T>
Kernel maxKernel(Builder& b, const Window& w) {
  return overWindows<T>(b, w, [](const Window& w, const T* image, int64_t top, int64_t left, T* y) {
    std::fill(y, y + w.channels, T(-std::numeric_limits<float>::infinity()));
    for (int64_t i = 0; i < w.kernel[0]; ++i) {
      const int64_t row = top + i * w.dilation[0];
      if (row < 0 || row >= w.height) continue;
      for (int64_t j = 0; j < w.kernel[1]; ++j) {
        const int64_t column = left + j * w.dilation[1];
        if (column >= 0 && column < w.width) largest(image + (row * w.width + column) * w.channels, y, w.channels);
      }
    }
  });
}

}  // namespace

void maxPool2d(Builder& b) {
  const Window w{ops::Pool2d(b)};
  if (b.rounds()) b.emit("bfloat16", maxKernel<Bfloat16>(b, w));
  else b.emit("", maxKernel<float>(b, w));
}

// The divisor is PyTorch's: with countIncludePad the window clipped to image and padding, without it to the image.
void avgPool2d(Builder& b) {
  const ops::Pool2d op(b);
  const Window w{op};
  b.emit("", overWindows<float>(b, w, [padded = op.countIncludePad](const Window& w, const float* image, int64_t top, int64_t left, float* y) {
    std::fill(y, y + w.channels, 0.F);
    const int64_t bottom = std::min(top + w.kernel[0], w.height + w.padding[0]);
    const int64_t right = std::min(left + w.kernel[1], w.width + w.padding[1]);
    const int64_t fromY = std::max<int64_t>(top, 0);
    const int64_t fromX = std::max<int64_t>(left, 0);
    const int64_t toY = std::min(bottom, w.height);
    const int64_t toX = std::min(right, w.width);
    for (int64_t i = fromY; i < toY; ++i)
      for (int64_t j = fromX; j < toX; ++j) addTo(image + (i * w.width + j) * w.channels, y, w.channels);
    const int64_t count = padded ? (bottom - top) * (right - left) : (toY - fromY) * (toX - fromX);
    scaleBy(1.F / static_cast<float>(count), y, w.channels);
  }));
}

}  // namespace seresnet::cpu
