#pragma once

#include "step_view.h"

namespace seresnet::ops {

// cross_entropy: logits [N, C], class indices [N] -> the loss, [] or, for reduction none, [N];
// cross_entropy_gradient: logits, class indices, the loss's gradient -> that of the logits.
struct CrossEntropy {
  int64_t batch, classes;
  double labelSmoothing;
  bool each, mean;  // reduction none, reduction mean; neither is sum

  explicit CrossEntropy(const StepView& s) : labelSmoothing(s.step().number("labelSmoothing")) {
    const bool gradient = s.step().op == "cross_entropy_gradient";
    const size_t arity = gradient ? 3 : 2;
    s.expectArity(arity, arity);
    const Shape& logits = s.input(0).shape;
    const DType targets = s.input(1).dtype;
    s.expect(logits.size() == 2 && s.input(1).shape == Shape{logits[0]}, "logits [N, C] and targets [N]");
    s.expect(isFloat(s.input(0).dtype) && isFloat(s.output().dtype), "logits of a float dtype");
    s.expect(targets == DType::int32 || targets == DType::int64, "int32 or int64 targets");
    batch = logits[0];
    classes = logits[1];
    const std::string reduction = s.step().text("reduction");
    each = reduction == "none";
    mean = reduction == "mean";
    s.expect(each || mean || reduction == "sum", "reduction none, mean or sum");
    const Slot& loss = gradient ? s.input(2) : s.output();
    s.expect(isFloat(loss.dtype) && loss.size() == (each ? batch : 1), "a scalar, or [N] for reduction none");
    if (gradient) s.expect(s.output().shape == logits, "gradients of the logits' shape");
  }
};

}  // namespace seresnet::ops
