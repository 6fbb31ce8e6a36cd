#include <cmath>
#include <cstring>

#include "ops.h"
#include "parallel.h"

namespace seresnet::cpu {

namespace {

struct Window {
  int64_t planes, height, width, outH, outW;
  std::vector<int64_t> kernel, stride, padding;
};

Window window(Builder& b, const Shape& x, const Shape& dy) {
  b.expectFloats();
  b.expect(x.size() == 4 && dy.size() == 4 && b.output().shape == x && dy[0] == x[0] && dy[1] == x[1],
           "images [N, C, H, W] and gradients [N, C, H', W']");
  const Step& step = b.step();
  return {x[0] * x[1], x[2], x[3], dy[2], dy[3], step.integers("kernelSize", 2, 1), step.integers("stride", 2, 1),
          step.integers("padding", 2, 0)};
}

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

}  // namespace

// Sends each window's gradient to its largest input (the first of equals, or the first NaN): x, dy -> dx.
void maxPool2dGradient(Builder& b) {
  b.expectArity(2, 2);
  const Window w = window(b, b.input(0).shape, b.input(1).shape);
  const std::vector<int64_t> dilation = b.step().integers("dilation", 2, 1);
  const BufferId x = b.read(0);
  const BufferId dy = b.read(1);
  const BufferId dx = b.write(0);
  b.emit("", overWindows(w, dy, dx, [=](const Pointers& p, float* out, float gradient, int64_t top, int64_t left, int64_t at) {
    const float* image = p.at(x) + at;
    int64_t best = -1;
    for (int64_t i = 0; i < w.kernel[0]; ++i)
      for (int64_t j = 0; j < w.kernel[1]; ++j) {
        const int64_t row = top + i * dilation[0];
        const int64_t column = left + j * dilation[1];
        if (row < 0 || row >= w.height || column < 0 || column >= w.width) continue;
        const float value = image[row * w.width + column];
        if (best < 0 || value > image[best] || (std::isnan(value) && !std::isnan(image[best]))) best = row * w.width + column;
      }
    if (best >= 0) out[best] += gradient;
  }));
}

// Spreads each window's gradient evenly over its inputs; the divisor is the forward op's: dy -> dx.
void avgPool2dGradient(Builder& b) {
  b.expectArity(1, 1);
  const Window w = window(b, b.output().shape, b.input(0).shape);
  const bool padded = b.step().flag("countIncludePad", true);
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
