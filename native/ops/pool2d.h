#pragma once

#include "step_view.h"

namespace seresnet::ops {

// max_pool2d, avg_pool2d: x [N, C, H, W] -> y [N, C, H', W']; max_pool2d_gradient: x, dy -> dx; avg_pool2d_gradient: dy -> dx
struct Pool2d {
  Shape x, y;  // of the images, and of what is pooled from them
  std::vector<int64_t> kernel, stride, padding, dilation;
  bool countIncludePad;  // of averages: the divisor is the window clipped to image and padding, without it to the image

  explicit Pool2d(const StepView& s) {
    const Step& step = s.step();
    const bool average = step.op.starts_with("avg");
    const bool gradient = step.op.ends_with("_gradient");
    const size_t arity = gradient && !average ? 2 : 1;
    s.expectArity(arity, arity);
    s.expectFloats();
    x = gradient ? s.output().shape : s.input(0).shape;
    y = gradient ? s.input(arity - 1).shape : s.output().shape;
    if (arity == 2) s.expect(s.input(0).shape == x, "x and dx of one shape");
    s.expect(x.size() == 4 && y.size() == 4 && x[0] == y[0] && x[1] == y[1], "x [N, C, H, W] and y [N, C, H', W']");
    kernel = step.integers("kernelSize", 2, 1);
    stride = step.integers("stride", 2, 1);
    padding = step.integers("padding", 2, 0);
    dilation = average ? std::vector<int64_t>{1, 1} : step.integers("dilation", 2, 1);
    countIncludePad = average && step.flag("countIncludePad", true);
  }
};

}  // namespace seresnet::ops
