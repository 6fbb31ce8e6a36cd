#pragma once

#include "step_view.h"

namespace seresnet::ops {

inline std::vector<int64_t> rowMajorStrides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t dim = shape.size(); dim-- > 0; stride *= shape[dim]) strides[dim] = stride;
  return strides;
}

// Strides along the dims of `to` of an array of shape `from` that is broadcast to it, whose own are `strides`.
inline std::vector<int64_t> broadcastStrides(const StepView& s, const Shape& from, const std::vector<int64_t>& strides,
                                             const Shape& to) {
  s.expect(from.size() <= to.size(), "shapes that broadcast");
  const size_t missing = to.size() - from.size();
  std::vector<int64_t> result(to.size(), 0);
  for (size_t dim = 0; dim < from.size(); ++dim) {
    s.expect(from[dim] == to[missing + dim] || from[dim] == 1, "shapes that broadcast");
    if (from[dim] != 1) result[missing + dim] = strides[dim];
  }
  return result;
}

// x -> scale * x, repeated along the dims where x has extent 1
struct Broadcast {
  double scale;
  std::vector<int64_t> strides;  // of x along the dims of the output

  explicit Broadcast(const StepView& s) : scale(s.step().number("scale")) {
    s.expectArity(1, 1);
    s.expectFloats();
    const Shape& x = s.input(0).shape;
    strides = broadcastStrides(s, x, rowMajorStrides(x), s.output().shape);
  }
};

// No inputs -> every element `value`
struct Fill {
  double value;

  explicit Fill(const StepView& s) : value(s.step().number("value")) {
    s.expectArity(0, 0);
    s.expectFloats();
  }
};

}  // namespace seresnet::ops
