#pragma once

#include "step_view.h"

namespace seresnet::ops {

inline void expectVector(const StepView& s, const Slot& slot, int64_t channels) {
  s.expect(slot.shape == Shape{channels}, "vectors of a value for each channel");
}

// batch_norm: x [N, C, ...], mean [C], variance [C], gamma [C]?, beta [C]?; batch_norm_act: the same, a residual?, then
// ReLU?
struct BatchNorm {
  bool affine, relu;
  int residual = -1;  // index among the inputs
  double eps;

  explicit BatchNorm(const StepView& s) {
    const Step& step = s.step();
    const bool act = step.op == "batch_norm_act";
    s.expectArity(3, act ? 6 : 5);
    s.expectFloats();
    const Shape& x = s.input(0).shape;
    s.expect(x.size() >= 2 && s.output().shape == x, "x [N, C, ...] and y of its shape");
    affine = act ? step.flag("affine") : s.inputs() > 3;
    relu = act && step.flag("relu");
    eps = step.number("eps");
    const bool hasResidual = act && step.flag("residual");
    const size_t vectors = affine ? 4 : 2;
    s.expect(s.inputs() == 1 + vectors + hasResidual, "as many inputs as its attributes say");
    for (size_t i = 1; i <= vectors; ++i) expectVector(s, s.input(i), x[1]);
    if (!hasResidual) return;
    residual = static_cast<int>(s.inputs()) - 1;
    s.expect(s.input(s.inputs() - 1).shape == x, "a residual of the output's shape");
  }
};

// x [N, C, ...], gamma [C]?, beta [C]?, residual? -> y (+ residual) (+ ReLU), the batch's mean [C] and biased variance [C]
struct BatchNormTrain {
  bool affine, relu;
  int residual = -1;  // index among the inputs
  double eps;

  explicit BatchNormTrain(const StepView& s) {
    const Step& step = s.step();
    const bool hasResidual = step.flag("residual");
    s.expectArity(size_t{1} + hasResidual, size_t{3} + hasResidual, 3);
    s.expectFloats();
    const Shape& x = s.input(0).shape;
    s.expect(x.size() >= 2 && s.output().shape == x, "x [N, C, ...] and y of its shape");
    affine = s.inputs() == size_t{3} + hasResidual;
    relu = step.flag("relu");
    eps = step.number("eps");
    s.expect(affine || s.inputs() == size_t{1} + hasResidual, "gamma and beta, or neither");
    for (size_t i = 1; affine && i < 3; ++i) expectVector(s, s.input(i), x[1]);
    for (size_t i = 1; i < 3; ++i) expectVector(s, s.output(i), x[1]);
    if (!hasResidual) return;
    residual = static_cast<int>(s.inputs()) - 1;
    s.expect(s.input(s.inputs() - 1).shape == x, "a residual of the output's shape");
  }
};

// x, mean, variance, dy, gamma?, with `relu` what it made of the result -> dx, dgamma, dbeta, with `residual` its gradient:
// what the ReLU lets through. With `training` the statistics came from x itself and pass gradients on.
struct BatchNormGradient {
  bool affine, residual, training;
  int activated = -1;  // what the ReLU made: index among the inputs
  double eps;

  explicit BatchNormGradient(const StepView& s) {
    const Step& step = s.step();
    const bool relu = step.flag("relu");
    residual = step.flag("residual");
    training = step.flag("training");
    eps = step.number("eps");
    s.expect(relu || !residual, "a residual's gradient with a ReLU only: otherwise it is dy");
    s.expectArity(size_t{4} + relu, size_t{5} + relu, size_t{3} + residual);
    s.expectFloats();
    affine = s.inputs() == size_t{5} + relu;
    const Shape& x = s.input(0).shape;
    s.expect(x.size() >= 2 && s.input(3).shape == x && s.output(0).shape == x, "x, dy and dx [N, C, ...]");
    for (size_t i = 1; i < 3; ++i) {
      expectVector(s, s.input(i), x[1]);
      expectVector(s, s.output(i), x[1]);
    }
    if (affine) expectVector(s, s.input(4), x[1]);
    if (residual) s.expect(s.output(3).shape == x, "a residual's gradient of x's shape");
    if (!relu) return;
    activated = static_cast<int>(s.inputs()) - 1;
    s.expect(s.input(s.inputs() - 1).shape == x, "the ReLU's result of x's shape");
  }
};

// running mean [C] and variance [C], the batch's mean [C] and biased variance [C], momentum -> the new running ones
struct RunningStatistics {
  double count;  // values that the batch's statistics are of

  explicit RunningStatistics(const StepView& s) : count(s.step().number("count")) {
    s.expectArity(5, 5, 2);
    s.expectFloats();
    const Shape& perChannel = s.input(0).shape;
    for (size_t i = 0; i < 4; ++i) s.expect(s.input(i).shape == perChannel, "statistics [C]");
    for (size_t i = 0; i < 2; ++i) s.expect(s.output(i).shape == perChannel, "statistics [C]");
    s.expect(s.input(4).size() == 1, "a scalar momentum");
  }
};

// weight [O, ...], bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]? -> the weight and bias of a convolution that
// does what convolution and batch norm did
struct FoldBatchNorm {
  bool bias, affine;
  double eps;

  explicit FoldBatchNorm(const StepView& s)
      : bias(s.step().flag("bias")), affine(s.step().flag("affine")), eps(s.step().number("eps")) {
    s.expectArity(3, 6, 2);
    s.expectFloats();
    s.expect(s.inputs() == size_t{3} + bias + 2 * affine, "as many inputs as its attributes say");
    const Shape& weight = s.input(0).shape;
    s.expect(!weight.empty() && s.output(0).shape == weight, "a weight [O, ...]");
    expectVector(s, s.output(1), weight[0]);
    for (size_t i = 1; i < s.inputs(); ++i) expectVector(s, s.input(i), weight[0]);
  }
};

}  // namespace seresnet::ops
