#pragma once

#include "step_view.h"

namespace seresnet::ops {

// R of the excitation W1 [R, C], b1 [R], W2 [C, R], b2 [C], the inputs from `at` on.
inline int64_t hiddenChannels(const StepView& s, size_t at, int64_t channels) {
  const Shape& w1 = s.input(at).shape;
  s.expect(w1.size() == 2 && w1[0] > 0, "W1 [R, C]");
  const int64_t hidden = w1[0];
  s.expect(w1[1] == channels && s.input(at + 1).shape == Shape{hidden} &&
               s.input(at + 2).shape == Shape{channels, hidden} && s.input(at + 3).shape == Shape{channels},
           "W1 [R, C], b1 [R], W2 [C, R], b2 [C]");
  return hidden;
}

// x [N, C, H, W], W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?:
// x * sigmoid(W2 relu(W1 mean(x) + b1) + b2) (+ residual) (+ ReLU)
struct SqueezeExcite {
  bool residual, relu;
  int64_t hidden = 0;  // R

  explicit SqueezeExcite(const StepView& s) : residual(s.step().flag("residual")), relu(s.step().flag("relu")) {
    s.expectArity(5, 6);
    s.expectFloats();
    s.expect(s.inputs() == size_t{5} + residual, "as many inputs as its attributes say");
    const Shape& x = s.input(0).shape;
    s.expect(x.size() == 4 && s.output().shape == x && s.output().size() > 0, "x [N, C, H, W] and y of its shape");
    hidden = hiddenChannels(s, 1, x[1]);
    if (residual) s.expect(s.input(5).shape == x, "a residual of x's shape");
  }
};

}  // namespace seresnet::ops
