#pragma once

#include <utility>

#include "step_view.h"

namespace seresnet::ops {

inline void expectSameKind(const StepView& s) {
  s.expectArity(1, 1);
  s.expect(s.input(0).dtype == s.output().dtype && s.input(0).shape.size() == s.output().shape.size(),
           "an output of the input's dtype and rank");
}

// Puts x into a larger array of zeros, `before[dim]` elements from the start of each dim.
struct Pad {
  std::vector<int64_t> before;

  explicit Pad(const StepView& s) {
    expectSameKind(s);
    const Shape& x = s.input(0).shape;
    const Shape& y = s.output().shape;
    before = s.step().integers("before", x.size(), 0);
    for (size_t dim = 0; dim < x.size(); ++dim)
      s.expect(before[dim] + x[dim] <= y[dim], "an output that holds the input");
  }
};

// slice: takes every `steps[dim]`-th element of each dim, from `starts[dim]` on, as many as the output holds;
// slice_gradient: puts the elements of dy there, into an array of zeros.
struct Slice {
  std::vector<int64_t> starts, steps;

  explicit Slice(const StepView& s) {
    expectSameKind(s);
    const bool gradient = s.step().op == "slice_gradient";
    const Shape& whole = gradient ? s.output().shape : s.input(0).shape;
    const Shape& part = gradient ? s.input(0).shape : s.output().shape;
    starts = s.step().integers("starts", whole.size(), 0);
    steps = s.step().integers("steps", whole.size(), 1);
    for (size_t dim = 0; dim < whole.size(); ++dim)
      s.expect(part[dim] == 0 || starts[dim] + (part[dim] - 1) * steps[dim] < whole[dim],
               gradient ? "a slice inside the output" : "a slice inside the input");
  }
};

// The last two dims exchanged.
inline void checkTranspose(const StepView& s) {
  expectSameKind(s);
  Shape shape = s.input(0).shape;
  s.expect(shape.size() >= 2, "matrices");
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  s.expect(s.output().shape == shape, "the last two dims exchanged");
}

// Same elements, other shape.
inline void checkReshape(const StepView& s) {
  s.expectArity(1, 1);
  s.expect(s.input(0).dtype == s.output().dtype && s.input(0).size() == s.output().size(), "an output of as many elements");
}

}  // namespace seresnet::ops
