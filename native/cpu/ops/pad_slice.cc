#include <cstring>

#include "cpu/loops/parallel.h"
#include "cpu/program/layout.h"
#include "ops.h"
#include "ops/pad_slice.h"

namespace seresnet::cpu {

namespace {

template <typename T>
void copyRow(const T* from, int64_t step, T* to, int64_t toStep, int64_t count) {
  for (int64_t k = 0; k < count; ++k) to[k * toStep] = from[k * step];
}

// Copies `count` elements between two places that are walked through with steps of their own.
template <typename T>
Kernel copyKernel(const Walk& walk, int64_t count, BufferId x, int64_t fromOrigin, BufferId y, int64_t toOrigin,
                  bool clear, size_t bytes) {
  return [=](const Pointers& p) {
    if (clear) std::memset(p.at(y), 0, bytes);
    const int64_t inner = walk.inner();
    parallel(count, 16384, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t length = std::min(last - at, inner - at % inner);
        copyRow(p.at<T>(x) + fromOrigin + walk.offset(0, at), walk.step(0), p.at<T>(y) + toOrigin + walk.offset(1, at),
                walk.step(1), length);
        at += length;
      }
    });
  };
}

void emitCopy(Builder& b, const Walk& walk, int64_t count, int64_t fromOrigin, int64_t toOrigin, bool clear) {
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const size_t bytes = b.output().bytes();
  switch (hostBytes(b.output().dtype)) {
    case 8:
      return b.emit("", copyKernel<uint64_t>(walk, count, x, fromOrigin, y, toOrigin, clear, bytes));
    case 4:
      return b.emit("", copyKernel<uint32_t>(walk, count, x, fromOrigin, y, toOrigin, clear, bytes));
    default:
      return b.emit("", copyKernel<uint8_t>(walk, count, x, fromOrigin, y, toOrigin, clear, bytes));
  }
}

int64_t originOf(const std::vector<int64_t>& starts, const std::vector<int64_t>& strides) {
  int64_t origin = 0;
  for (size_t dim = 0; dim < starts.size(); ++dim) origin += starts[dim] * strides[dim];
  return origin;
}

}  // namespace

// Puts x into a larger array of zeros, `before[dim]` elements from the start of each dim.
void pad(Builder& b) {
  const ops::Pad op(b);
  const Shape& x = b.input(0).shape;
  const std::vector<int64_t> strides = stridesOf(b.output().shape);
  emitCopy(b, walk(x, Layout::plain, {stridesOf(x), strides}), sizeOf(x), 0, originOf(op.before, strides), true);
}

// Takes every `steps[dim]`-th element of each dim, from `starts[dim]` on, as many as the output holds.
void slice(Builder& b) {
  const ops::Slice op(b);
  const Shape& y = b.output().shape;
  std::vector<int64_t> strides = stridesOf(b.input(0).shape);
  const int64_t origin = originOf(op.starts, strides);
  for (size_t dim = 0; dim < strides.size(); ++dim) strides[dim] *= op.steps[dim];
  emitCopy(b, walk(y, Layout::plain, {strides, stridesOf(y)}), sizeOf(y), origin, 0, false);
}

// The way back of slice: the elements of dy at `starts + i * steps` of an array of zeros.
void sliceGradient(Builder& b) {
  const ops::Slice op(b);
  const Shape& dy = b.input(0).shape;
  std::vector<int64_t> strides = stridesOf(b.output().shape);
  const int64_t origin = originOf(op.starts, strides);
  for (size_t dim = 0; dim < strides.size(); ++dim) strides[dim] *= op.steps[dim];
  emitCopy(b, walk(dy, Layout::plain, {stridesOf(dy), strides}), sizeOf(dy), 0, origin, true);
}

// The last two dims exchanged.
void transpose(Builder& b) {
  ops::checkTranspose(b);
  b.expectFloats();
  std::vector<int64_t> strides = stridesOf(b.input(0).shape);
  std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
  const Walk steps = walk(b.output().shape, Layout::plain, {strides});
  const BufferId from = b.read(0);
  const BufferId to = b.write(0);
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    const int64_t inner = steps.inner();
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t length = std::min(last - at, inner - at % inner);
        const float* source = p.at(from) + steps.offset(0, at);
        for (int64_t k = 0; k < length; ++k) p.at(to)[at + k] = source[k * steps.step(0)];
        at += length;
      }
    });
  });
}

// Same elements, other shape.
void reshape(Builder& b) {
  ops::checkReshape(b);
  b.alias(0);
}

}  // namespace seresnet::cpu
