#include "cpu/loops/parallel.h"
#include "cpu/program/layout.h"
#include "ops.h"

namespace seresnet::cpu {

// Every element `value`. No inputs.
void fill(Builder& b) {
  b.expectArity(0, 0);
  b.expectFloats();
  const BufferId y = b.write(0);
  b.emit("", [=, value = static_cast<float>(b.step().number("value")), count = b.output().size()](const Pointers& p) {
    std::fill(p.at(y), p.at(y) + count, value);
  });
}

// x repeated along its extents of 1 and multiplied by `scale`.
void broadcast(Builder& b) {
  b.expectArity(1, 1);
  b.expectFloats();
  const Shape& shape = b.output().shape;
  const Walk steps = walk(shape, Layout::plain, {broadcastStrides(b, b.input(0).shape, Layout::plain, shape)});
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const auto scale = static_cast<float>(b.step().number("scale"));
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    const int64_t inner = steps.inner();
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t length = std::min(last - at, inner - at % inner);
        const float* from = p.at(x) + steps.offset(0, at);
        for (int64_t k = 0; k < length; ++k) p.at(y)[at + k] = scale * from[k * steps.step(0)];
        at += length;
      }
    });
  });
}

// The last two dims exchanged.
void transpose(Builder& b) {
  b.expectArity(1, 1);
  b.expectFloats();
  const Shape& x = b.input(0).shape;
  b.expect(x.size() >= 2 && b.output().shape.size() == x.size(), "matrices");
  Shape shape = x;
  std::vector<int64_t> strides = stridesOf(x);
  std::swap(shape[x.size() - 1], shape[x.size() - 2]);
  std::swap(strides[x.size() - 1], strides[x.size() - 2]);
  b.expect(b.output().shape == shape, "the last two dims exchanged");
  const Walk steps = walk(shape, Layout::plain, {strides});
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

}  // namespace seresnet::cpu
