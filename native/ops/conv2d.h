#pragma once

#include "squeeze_excite.h"
#include "step_view.h"

namespace seresnet::ops {

struct ConvolutionGeometry {
  std::vector<int64_t> stride, padding, dilation;
  int64_t groups = 1;
};

// Of the convolution of x [N, C, H, W] with w [O, C / groups, kh, kw] to y, with the attributes of the step.
inline ConvolutionGeometry convolutionGeometry(const StepView& s, const Shape& x, const Shape& w, const Shape& y) {
  const Step& step = s.step();
  const ConvolutionGeometry g{step.integers("stride", 2, 1), step.integers("padding", 2, 0),
                              step.integers("dilation", 2, 1), step.integer("groups", 1)};
  s.expect(x.size() == 4 && w.size() == 4 && y.size() == 4, "4-dimensional tensors");
  s.expect(w[1] * g.groups == x[1] && w[0] % g.groups == 0 && y[0] == x[0] && y[1] == w[0], "channels that fit");
  for (size_t i = 0; i < 2; ++i) {
    const int64_t free = x[2 + i] + 2 * g.padding[i] - g.dilation[i] * (w[2 + i] - 1) - 1;
    s.expect(free >= 0 && y[2 + i] == free / g.stride[i] + 1, "an image of the size the window gives");
  }
  return g;
}

// conv2d: x, weight, bias [O]?; fused_conv2d: the same and a residual?, then ReLU?
struct Conv2d {
  ConvolutionGeometry geometry;
  int bias = -1;      // index among the inputs
  int residual = -1;  // the same
  bool relu = false;

  explicit Conv2d(const StepView& s) {
    const Step& step = s.step();
    const bool fused = step.op == "fused_conv2d";
    s.expectArity(2, fused ? 4 : 3);
    read(s, fused ? step.flag("bias") : s.inputs() == 3, fused && step.flag("residual"), fused && step.flag("relu"), 0);
  }

 protected:
  Conv2d() = default;

  // `others` inputs lie between the bias and the residual.
  void read(const StepView& s, bool hasBias, bool hasResidual, bool hasRelu, size_t others) {
    s.expectFloats();
    s.expect(s.inputs() == 2 + others + hasBias + hasResidual, "as many inputs as its attributes say");
    const Shape& y = s.output().shape;
    geometry = convolutionGeometry(s, s.input(0).shape, s.input(1).shape, y);
    relu = hasRelu;
    if (hasBias) {
      bias = 2;
      s.expect(s.input(2).shape == Shape{y[1]}, "a bias for each channel");
    }
    if (hasResidual) {
      residual = static_cast<int>(s.inputs()) - 1;
      s.expect(s.input(s.inputs() - 1).shape == y, "a residual of the output's shape");
    }
  }
};

// x, weight, bias?, W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?: conv(x) * gate (+ residual) (+ ReLU)
struct GatedConv2d : Conv2d {
  size_t excitation = 2;  // W1, b1, W2, b2 from here
  int64_t hidden = 0;     // R

  explicit GatedConv2d(const StepView& s) {
    const Step& step = s.step();
    s.expectArity(6, 8);
    read(s, step.flag("bias"), step.flag("residual"), step.flag("relu"), 4);
    s.expect(s.input(0).size() > 0 && s.output().size() > 0, "images that are not empty");
    if (bias >= 0) ++excitation;
    hidden = hiddenChannels(s, excitation, s.output().shape[1]);
  }
};

// conv2d_input_gradient: dy, weight -> dx; conv2d_weight_gradient: x, dy -> dweight.
struct Conv2dGradient {
  bool input = false;  // of the input, or else of the weight
  Shape x, w, y;       // of the convolution x, w -> y that it belongs to
  ConvolutionGeometry geometry;

  explicit Conv2dGradient(const StepView& s) {
    s.expectArity(2, 2);
    s.expectFloats();
    input = s.step().op == "conv2d_input_gradient";
    x = input ? s.output().shape : s.input(0).shape;
    w = input ? s.input(1).shape : s.output().shape;
    y = s.input(input ? 0 : 1).shape;
    geometry = convolutionGeometry(s, x, w, y);
    s.expect(sizeOf(x) > 0 && sizeOf(y) > 0 && s.output().size() > 0, "images that are not empty");
  }
};

}  // namespace seresnet::ops
