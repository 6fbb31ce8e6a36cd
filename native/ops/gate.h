#pragma once

#include "step_view.h"

// The last product of squeeze-and-excitation with its tail, and its gradients, in training plans.
namespace seresnet::ops {

// x [N, C, H, W] first, its gate [N, C, 1, 1] behind it, and whatever else of x's shape.
inline void expectGated(const StepView& s) {
  s.expectFloats();
  const Shape& x = s.input(0).shape;
  s.expect(x.size() == 4 && s.input(1).shape == Shape{x[0], x[1], 1, 1}, "x [N, C, H, W] and a gate [N, C, 1, 1]");
  for (size_t i = 2; i < s.inputs(); ++i) s.expect(s.input(i).shape == x, "images of one shape");
  s.expect(s.output().shape == x, "a result of x's shape");
}

// x, gate, residual? -> x * gate (+ residual) (+ ReLU)
struct Gate {
  bool residual, relu;

  explicit Gate(const StepView& s) : residual(s.step().flag("residual")), relu(s.step().flag("relu")) {
    s.expectArity(size_t{2} + residual, size_t{2} + residual);
    expectGated(s);
  }
};

// x, gate, dy, with `relu` what it made of the result -> dx, dgate, with `residual` its gradient: what the ReLU lets through
struct GateGradient {
  bool residual, relu;

  explicit GateGradient(const StepView& s) : residual(s.step().flag("residual")), relu(s.step().flag("relu")) {
    s.expect(relu || !residual, "a residual's gradient with a ReLU only: otherwise it is dy");
    s.expectArity(size_t{3} + relu, size_t{3} + relu, size_t{2} + residual);
    expectGated(s);
    s.expect(s.output(1).shape == s.input(1).shape, "a gradient of the gate's shape");
    if (residual) s.expect(s.output(2).shape == s.output().shape, "a residual's gradient of x's shape");
  }
};

}  // namespace seresnet::ops
