#pragma once

#include "step_view.h"

namespace seresnet::ops {

// relu, sigmoid, sqrt, exp, log, neg: x -> y of its shape
inline void checkUnary(const StepView& s) {
  s.expectArity(1, 1);
  s.expectFloats();
  s.expect(s.input(0).shape == s.output().shape, "an output of the input's shape");
}

// add, sub, mul, div: a, b -> y, all of one dtype; the walk over them checks that they broadcast
inline void checkBinary(const StepView& s) {
  s.expectArity(2, 2);
  const DType dtype = s.output().dtype;
  s.expect(s.input(0).dtype == dtype && s.input(1).dtype == dtype, "tensors of one dtype");
  s.expect(s.step().op != "div" || isFloat(dtype), "tensors of a float dtype");
}

// x -> y of its shape and another dtype
inline void checkCast(const StepView& s) {
  s.expectArity(1, 1);
  s.expect(s.input(0).shape == s.output().shape, "an output of the input's shape");
}

// relu_gradient, sigmoid_gradient: y of the activation, dy -> dx
inline void checkActivationGradient(const StepView& s) {
  s.expectArity(2, 2);
  s.expectFloats();
  const Shape& shape = s.output().shape;
  s.expect(s.input(0).shape == shape && s.input(1).shape == shape, "tensors of one shape");
}

}  // namespace seresnet::ops
