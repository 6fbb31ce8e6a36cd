#pragma once

#include "step_view.h"

namespace seresnet::ops {

// A step of an optimiser: `state` tensors of one shape (the parameter, its gradient, what the optimiser keeps), then
// `settings` of one element and perhaps one that says, unless it is 0, that everything stays as it is -> the parameter and
// what is kept.
struct Update {
  size_t state, settings;
  bool skips;

  Update(const StepView& s, size_t state, size_t settings) : state(state), settings(settings) {
    const size_t results = state - 1;
    s.expectArity(state + settings, state + settings + 1, results);
    s.expectFloats();
    skips = s.inputs() > state + settings;
    const Shape& parameter = s.input(0).shape;
    for (size_t i = 0; i < state; ++i) s.expect(s.input(i).shape == parameter, "state of the parameter's shape");
    for (size_t i = state; i < s.inputs(); ++i) s.expect(s.input(i).size() == 1, "scalar settings");
    for (size_t i = 0; i < results; ++i)
      s.expect(s.output(i).shape == parameter, "results of the parameter's shape");
  }
};

// PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay, skip? -> parameter, velocity
struct Sgd : Update {
  bool nesterov;

  explicit Sgd(const StepView& s) : Update(s, 3, 3), nesterov(s.step().flag("nesterov")) {}
};

// parameter, gradient, two moments, lr, beta1, beta2, eps, weightDecay, step, skip? -> parameter, moments
struct Adamw : Update {
  explicit Adamw(const StepView& s) : Update(s, 4, 6) {}
};

// found_inf, global_norm: any number of tensors -> a scalar
inline void checkScalarOfAll(const StepView& s) {
  s.expectArity(1, s.inputs());
  s.expectFloats();
  s.expect(s.output().size() == 1, "a scalar");
}

// Any number of tensors and a factor -> each times the factor
struct Scale {
  size_t count;

  explicit Scale(const StepView& s) : count(s.inputs() - 1) {
    s.expectArity(2, s.inputs(), count);
    s.expectFloats();
    s.expect(s.input(count).size() == 1, "a scalar last");
    for (size_t i = 0; i < count; ++i) s.expect(s.output(i).shape == s.input(i).shape, "results of the tensors' shapes");
  }
};

// Any number of tensors, as many others of their shapes and a weight -> x + weight * (other - x) for each
struct Lerp {
  size_t count;

  explicit Lerp(const StepView& s) : count(s.inputs() / 2) {
    s.expectArity(3, 2 * count + 1, count);
    s.expectFloats();
    s.expect(s.inputs() == 2 * count + 1 && s.input(2 * count).size() == 1, "a scalar last");
    for (size_t i = 0; i < count; ++i)
      s.expect(s.input(count + i).shape == s.input(i).shape && s.output(i).shape == s.input(i).shape,
               "tensors of the same shapes");
  }
};

}  // namespace seresnet::ops
