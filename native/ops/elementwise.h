#pragma once

#include <algorithm>
#include <string_view>

#include "step_view.h"
#include "table.h"

namespace seresnet::ops {

// Where a name is in a list of names that has it.
template <typename Op, size_t count>
Op named(const std::string_view (&names)[count], const std::string& name) {
  return static_cast<Op>(std::find(names, names + count, name) - names);
}

// x -> y of its shape
inline Unary unary(const StepView& s) {
  s.expectArity(1, 1);
  s.expectFloats();
  s.expect(s.input(0).shape == s.output().shape, "an output of the input's shape");
  static constexpr std::string_view names[] = {SERESNET_UNARY_OPS(SERESNET_OP_NAME)};
  return named<Unary>(names, s.step().op);
}

// a, b -> y, all of one dtype; the walk over them checks that they broadcast
inline Binary binary(const StepView& s) {
  s.expectArity(2, 2);
  const DType dtype = s.output().dtype;
  s.expect(s.input(0).dtype == dtype && s.input(1).dtype == dtype, "tensors of one dtype");
  s.expect(s.step().op != "div" || isFloat(dtype), "tensors of a float dtype");
  static constexpr std::string_view names[] = {SERESNET_BINARY_OPS(SERESNET_OP_NAME)};
  return named<Binary>(names, s.step().op);
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
