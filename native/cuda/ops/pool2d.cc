#include "cuda/kernels/pool2d.h"

#include "bind.h"
#include "ops.h"
#include "ops/pool2d.h"

namespace seresnet::cuda {

namespace {

// The pooling of the current step, or the one that its gradient is of.
Pool2dArguments window(Builder& b) {
  const ops::Pool2d op(b);
  b.expectOneDtype();
  Pool2dArguments arguments;
  arguments.dtype = b.outputType();
  arguments.input = {op.x[0], op.x[2], op.x[3], op.x[1]};
  arguments.outHeight = op.y[2];
  arguments.outWidth = op.y[3];
  for (size_t i = 0; i < 2; ++i) {
    arguments.kernel[i] = op.kernel[i];
    arguments.stride[i] = op.stride[i];
    arguments.padding[i] = op.padding[i];
    arguments.dilation[i] = op.dilation[i];
  }
  arguments.countIncludePad = op.countIncludePad;
  return arguments;
}

void forward(Builder& b, void (*launch)(Stream, const Pool2dArguments&)) {
  Pool2dArguments arguments = window(b);
  emitLaunch(b, "", launch, arguments,
             std::tuple{bind<&Pool2dArguments::x>(b.read(0, Layout::channelsLast)),
                        bind<&Pool2dArguments::y>(b.write(0, Layout::channelsLast))});
}

}  // namespace

void maxPool2d(Builder& b) { forward(b, launchMaxPool2d); }

void avgPool2d(Builder& b) { forward(b, launchAvgPool2d); }

// x, dy -> dx
void maxPool2dGradient(Builder& b) {
  Pool2dGradientArguments arguments;
  arguments.forward = window(b);
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
  Pool2dGradientArguments arguments;
  arguments.forward = window(b);
  emitLaunch(b, "", launchAvgPool2dGradient, arguments,
             std::tuple{bind<&Pool2dGradientArguments::dy>(b.read(0, Layout::channelsLast)),
                        bind<&Pool2dGradientArguments::dx>(b.write(0, Layout::channelsLast))});
}

}  // namespace seresnet::cuda
