#include "cuda/kernels/pool2d.h"

#include "ops.h"

namespace seresnet::cuda {

namespace {

// The pooling of the current step, from images x to images y.
Pool2dArguments window(Builder& b, const Shape& x, const Shape& y) {
  b.expectFloats();
  b.expect(x.size() == 4 && y.size() == 4 && x[0] == y[0] && x[1] == y[1], "x [N, C, H, W] and y [N, C, H', W']");
  const Step& step = b.step();
  const bool average = step.op.starts_with("avg");
  const auto kernel = step.integers("kernelSize", 2, 1);
  const auto stride = step.integers("stride", 2, 1);
  const auto padding = step.integers("padding", 2, 0);
  const auto dilation = average ? std::vector<int64_t>{1, 1} : step.integers("dilation", 2, 1);
  Pool2dArguments arguments;
  arguments.dtype = b.outputType();
  arguments.input = {x[0], x[2], x[3], x[1]};
  arguments.outHeight = y[2];
  arguments.outWidth = y[3];
  for (size_t i = 0; i < 2; ++i) {
    arguments.kernel[i] = kernel[i];
    arguments.stride[i] = stride[i];
    arguments.padding[i] = padding[i];
    arguments.dilation[i] = dilation[i];
  }
  arguments.countIncludePad = average && step.flag("countIncludePad", true);
  return arguments;
}

void forward(Builder& b, void (*launch)(Stream, const Pool2dArguments&)) {
  b.expectArity(1, 1);
  Pool2dArguments arguments = window(b, b.input(0).shape, b.output().shape);
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId y = b.write(0, Layout::channelsLast);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launch(stream, arguments);
  });
}

}  // namespace

void maxPool2d(Builder& b) { forward(b, launchMaxPool2d); }

void avgPool2d(Builder& b) { forward(b, launchAvgPool2d); }

// x, dy -> dx
void maxPool2dGradient(Builder& b) {
  b.expectArity(2, 2);
  b.expect(b.input(0).shape == b.output().shape, "x and dx of one shape");
  Pool2dGradientArguments arguments;
  arguments.forward = window(b, b.output().shape, b.input(1).shape);
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId dy = b.read(1, Layout::channelsLast);
  const BufferId dx = b.write(0, Layout::channelsLast);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.forward.x = p.at(x);
    arguments.dy = p.at(dy);
    arguments.dx = p.at(dx);
    launchMaxPool2dGradient(stream, arguments);
  });
}

// dy -> dx
void avgPool2dGradient(Builder& b) {
  b.expectArity(1, 1);
  Pool2dGradientArguments arguments;
  arguments.forward = window(b, b.output().shape, b.input(0).shape);
  const BufferId dy = b.read(0, Layout::channelsLast);
  const BufferId dx = b.write(0, Layout::channelsLast);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.dy = p.at(dy);
    arguments.dx = p.at(dx);
    launchAvgPool2dGradient(stream, arguments);
  });
}

}  // namespace seresnet::cuda
