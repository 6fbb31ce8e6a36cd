#include "cpu/loops/parallel.h"
#include "cpu/program/layout.h"
#include "ops.h"
#include "ops/broadcast.h"
#include "ops/elementwise.h"

namespace seresnet::cpu {

namespace {

using ops::Binary;

// One row: y[k] = a[k * stepA] (op) b[k * stepB]. Integers wrap around.
template <typename T, typename Apply>
inline __attribute__((always_inline)) void row(T* y, const T* a, int64_t stepA, const T* b, int64_t stepB, int64_t count,
                                               Apply apply) {
  if (stepA == 1 && stepB == 1)
    for (int64_t k = 0; k < count; ++k) y[k] = apply(a[k], b[k]);
  else if (stepA == 1 && stepB == 0)
    for (int64_t k = 0; k < count; ++k) y[k] = apply(a[k], *b);
  else
    for (int64_t k = 0; k < count; ++k) y[k] = apply(a[k * stepA], b[k * stepB]);
}

SERESNET_CLONES void floatRow(Binary op, float* y, const float* a, int64_t stepA, const float* b, int64_t stepB,
                              int64_t count) {
  switch (op) {
    case Binary::add:
      return row(y, a, stepA, b, stepB, count, [](float p, float q) { return p + q; });
    case Binary::sub:
      return row(y, a, stepA, b, stepB, count, [](float p, float q) { return p - q; });
    case Binary::mul:
      return row(y, a, stepA, b, stepB, count, [](float p, float q) { return p * q; });
    case Binary::div:
      return row(y, a, stepA, b, stepB, count, [](float p, float q) { return p / q; });
  }
}

// uint64 arithmetic is that of every integer dtype once the result is cut to its width.
template <typename T>
void integerRow(Binary op, T* y, const T* a, int64_t stepA, const T* b, int64_t stepB, int64_t count) {
  const auto wide = [](T value) { return static_cast<uint64_t>(value); };
  row(y, a, stepA, b, stepB, count, [&](T p, T q) {
    if (op == Binary::add) return static_cast<T>(wide(p) + wide(q));
    return static_cast<T>(op == Binary::sub ? wide(p) - wide(q) : wide(p) * wide(q));
  });
}

void anyRow(Binary op, float* y, const float* a, int64_t stepA, const float* b, int64_t stepB, int64_t count) {
  floatRow(op, y, a, stepA, b, stepB, count);
}

template <typename T>
void anyRow(Binary op, T* y, const T* a, int64_t stepA, const T* b, int64_t stepB, int64_t count) {
  integerRow(op, y, a, stepA, b, stepB, count);
}

template <typename T>
Kernel kernel(Binary op, const Walk& walk, int64_t size, BufferId a, BufferId b, BufferId y) {
  return [=](const Pointers& p) {
    const int64_t inner = walk.inner();
    parallel(size, 8192, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t count = std::min(last - at, inner - at % inner);
        anyRow(op, p.at<T>(y) + at, p.at<T>(a) + walk.offset(0, at), walk.step(0), p.at<T>(b) + walk.offset(1, at),
               walk.step(1), count);
        at += count;
      }
    });
  };
}

// `rows` rows of a whole image's channels, of which each meets the same vector.
template <typename Apply>
inline __attribute__((always_inline)) void rows(float* y, const float* a, const float* vector, int64_t count, int64_t channels,
                                                Apply apply) {
  for (int64_t row = 0; row < count; ++row, y += channels, a += channels)
    for (int64_t c = 0; c < channels; ++c) y[c] = apply(a[c], vector[c]);
}

SERESNET_CLONES void channelRows(Binary op, float* y, const float* a, const float* vector, int64_t count,
                                 int64_t channels) {
  switch (op) {
    case Binary::add:
      return rows(y, a, vector, count, channels, [](float p, float q) { return p + q; });
    case Binary::sub:
      return rows(y, a, vector, count, channels, [](float p, float q) { return p - q; });
    case Binary::mul:
      return rows(y, a, vector, count, channels, [](float p, float q) { return p * q; });
    case Binary::div:
      return rows(y, a, vector, count, channels, [](float p, float q) { return p / q; });
  }
}

// A channels-last batch [N, C, H, W] and vectors [N, C, 1, 1] -> y.
Kernel vectorKernel(Binary op, const Shape& shape, BufferId images, BufferId vectors, BufferId y) {
  return [=, channels = shape[1], pixels = shape[2] * shape[3]](const Pointers& p) {
    parallel(shape[0] * pixels, std::max<int64_t>(1, 8192 / channels), [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t count = std::min(last - at, pixels - at % pixels);
        channelRows(op, p.at(y) + at * channels, p.at(images) + at * channels, p.at(vectors) + at / pixels * channels, count,
                    channels);
        at += count;
      }
    });
  };
}

}  // namespace

// add, sub, mul, div: a, b -> y, with numpy's broadcasting, in whatever layout a whole image has.
void binary(Builder& b) {
  const Binary op = ops::binary(b);
  const DType dtype = b.output().dtype;
  const Shape& shape = b.output().shape;
  Layout layout = Layout::plain;
  for (size_t i = 0; i < 2; ++i)
    if (shape.size() == 4 && b.input(i).shape == shape && b.has(i, Layout::channelsLast) && !b.has(i, Layout::plain))
      layout = Layout::channelsLast;
  const auto layoutOf = [&](size_t i) {
    const bool image = b.input(i).shape.size() == 4 && (b.input(i).shape == shape || !b.has(i, Layout::plain));
    return image ? layout : Layout::plain;
  };
  const auto stridesIn = [&](size_t i) {
    const Shape& own = b.input(i).shape;
    return ops::broadcastStrides(b, own, stridesOf(own, layoutOf(i)), shape);
  };
  const Walk steps = walk(shape, layout, {stridesIn(0), stridesIn(1)});
  const BufferId left = b.read(0, layoutOf(0));
  const BufferId right = b.read(1, layoutOf(1));
  const BufferId y = b.write(0, layout);
  const int64_t size = b.output().size();
  const auto isVector = [&](size_t i) {
    return b.input(i).shape.size() == 4 && b.input(i).shape == Shape{shape[0], shape[1], 1, 1};
  };
  const bool images = layout == Layout::channelsLast && isFloat(dtype) && size > 0;
  if (images && b.input(0).shape == shape && isVector(1)) b.emit("vectors", vectorKernel(op, shape, left, right, y));
  else if (images && b.input(1).shape == shape && isVector(0) && (op == Binary::add || op == Binary::mul))
    b.emit("vectors", vectorKernel(op, shape, right, left, y));
  else if (dtype == DType::int64) b.emit("", kernel<int64_t>(op, steps, size, left, right, y));
  else if (dtype == DType::int32) b.emit("", kernel<int32_t>(op, steps, size, left, right, y));
  else if (dtype == DType::uint8) b.emit("", kernel<uint8_t>(op, steps, size, left, right, y));
  else b.emit("", kernel<float>(op, steps, size, left, right, y));
}

}  // namespace seresnet::cpu
