#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/pool2d.h"

namespace seresnet::cpu {

namespace {

struct Window {
  int64_t planes, height, width, outH, outW;
  std::vector<int64_t> kernel, stride, padding;

  explicit Window(const ops::Pool2d& op)
      : planes(op.x[0] * op.x[1]), height(op.x[2]), width(op.x[3]), outH(op.y[2]), outW(op.y[3]), kernel(op.kernel),
        stride(op.stride), padding(op.padding) {}
};

// dx's planes cleared, then `visit(plane of dx, element of dy, corner, plane's number)` for each window.
template <typename Visit>
Kernel overWindows(const Window& w, BufferId dy, BufferId dx, Visit visit) {
  return [=](const Pointers& p) {
    const int64_t size = w.height * w.width;
    parallel(w.planes, 1, [&](int64_t first, int64_t last) {
      for (int64_t plane = first; plane < last; ++plane) {
        float* out = p.at(dx) + plane * size;
        std::memset(out, 0, static_cast<size_t>(size) * sizeof(float));
        for (int64_t row = 0; row < w.outH; ++row)
          for (int64_t column = 0; column < w.outW; ++column)
            visit(p, out, p.at(dy)[(plane * w.outH + row) * w.outW + column], row * w.stride[0] - w.padding[0],
                  column * w.stride[1] - w.padding[1], plane * size);
      }
    });
  };
}

// Channels that one task takes at most.
constexpr int64_t lanes = 64;

// The largest of a window so far and which of its elements that is, of `count` channels.
SERESNET_CLONES void largest(const float* x, int32_t at, float* best, int32_t* which, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    const float value = x[c];
    const float old = best[c];
    const int32_t place = which[c];
    const bool larger = (value > old) | (value != value);  // no branches
    best[c] = larger ? value : old;
    which[c] = larger ? at : place;
  }
}

SERESNET_CLONES void addWhere(const int32_t* which, int32_t at, const float* dy, float* dx, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    const float gradient = dy[c];
    dx[c] += which[c] == at ? gradient : 0;
  }
}

// Max pooling's gradient of channels-last images.
Kernel maxOfChannelsLast(const Window& w, const Shape& shape, const std::vector<int64_t>& dilation, BufferId x, BufferId dy,
                         BufferId dx) {
  const int64_t channels = shape[1];
  const int64_t groups = (channels + lanes - 1) / lanes;
  return [=](const Pointers& p) {
    parallel(shape[0] * groups, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t from = task % groups * lanes;
        const int64_t count = std::min(lanes, channels - from);
        const float* image = p.at(x) + task / groups * w.height * w.width * channels + from;
        const float* gradients = p.at(dy) + task / groups * w.outH * w.outW * channels + from;
        float* out = p.at(dx) + (image - p.at(x));
        for (int64_t pixel = 0; pixel < w.height * w.width; ++pixel) std::fill_n(out + pixel * channels, count, 0.F);
        for (int64_t row = 0; row < w.outH; ++row)
          for (int64_t column = 0; column < w.outW; ++column, gradients += channels) {
            float best[lanes];
            int32_t which[lanes];
            bool any = false;
            const auto visit = [&](const auto& each) {
              for (int64_t i = 0; i < w.kernel[0]; ++i)
                for (int64_t j = 0; j < w.kernel[1]; ++j) {
                  const int64_t y = row * w.stride[0] - w.padding[0] + i * dilation[0];
                  const int64_t x = column * w.stride[1] - w.padding[1] + j * dilation[1];
                  if (y < 0 || y >= w.height || x < 0 || x >= w.width) continue;
                  each(static_cast<int32_t>(i * w.kernel[1] + j), (y * w.width + x) * channels);
                }
            };
            visit([&](int32_t tap, int64_t at) {
              if (any) return largest(image + at, tap, best, which, count);
              std::copy_n(image + at, count, best);
              std::fill_n(which, count, tap);
              any = true;
            });
            visit([&](int32_t tap, int64_t at) { addWhere(which, tap, gradients, out + at, count); });
          }
      }
    });
  };
}

}  // namespace

// Sends each window's gradient to its largest input (the first of equals, or the last NaN, as in PyTorch): x, dy -> dx.
void maxPool2dGradient(Builder& b) {
  const ops::Pool2d op(b);
  const Window w{op};
  const std::vector<int64_t> dilation = op.dilation;
  const Layout layout = b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
  const BufferId x = b.read(0, layout);
  const BufferId dy = b.read(1, layout);
  const BufferId dx = b.write(0, layout);
  if (layout == Layout::channelsLast)
    return b.emit("channels", maxOfChannelsLast(w, b.input(0).shape, dilation, x, dy, dx));
  b.emit("", overWindows(w, dy, dx, [=](const Pointers& p, float* out, float gradient, int64_t top, int64_t left, int64_t at) {
    const float* image = p.at(x) + at;
    int64_t best = -1;
    for (int64_t i = 0; i < w.kernel[0]; ++i)
      for (int64_t j = 0; j < w.kernel[1]; ++j) {
        const int64_t row = top + i * dilation[0];
        const int64_t column = left + j * dilation[1];
        if (row < 0 || row >= w.height || column < 0 || column >= w.width) continue;
        const float value = image[row * w.width + column];
        if (best < 0 || value > image[best] || std::isnan(value)) best = row * w.width + column;
      }
    if (best >= 0) out[best] += gradient;
  }));
}

// Spreads each window's gradient evenly over its inputs; the divisor is the forward op's: dy -> dx.
void avgPool2dGradient(Builder& b) {
  const ops::Pool2d op(b);
  const Window w{op};
  const bool padded = op.countIncludePad;
  const BufferId dy = b.read(0);
  const BufferId dx = b.write(0);
  b.emit("", overWindows(w, dy, dx, [=](const Pointers&, float* out, float gradient, int64_t top, int64_t left, int64_t) {
    const int64_t bottom = std::min(top + w.kernel[0], w.height + w.padding[0]);
    const int64_t right = std::min(left + w.kernel[1], w.width + w.padding[1]);
    const int64_t fromY = std::max<int64_t>(top, 0);
    const int64_t fromX = std::max<int64_t>(left, 0);
    const int64_t toY = std::min(bottom, w.height);
    const int64_t toX = std::min(right, w.width);
    const int64_t count = padded ? (bottom - top) * (right - left) : (toY - fromY) * (toX - fromX);
    const float part = gradient / static_cast<float>(count);
    for (int64_t i = fromY; i < toY; ++i)
      for (int64_t j = fromX; j < toX; ++j) out[i * w.width + j] += part;
  }));
}

}  // namespace seresnet::cpu
