#include "cuda/kernels/gate.h"

#include "cuda/kernels/bias_act.h"
#include "ops.h"

// The last product of squeeze-and-excitation with its tail, and its gradients, in training plans.
namespace seresnet::cuda {

namespace {

// x [N, C, H, W] first, its gate [N, C, 1, 1] behind it, and whatever else of x's shape.
Images expectGated(Builder& b) {
  b.expectFloats();
  const Shape& x = b.input(0).shape;
  b.expect(x.size() == 4 && b.input(1).shape == Shape{x[0], x[1], 1, 1}, "x [N, C, H, W] and a gate [N, C, 1, 1]");
  for (size_t i = 2; i < b.inputs(); ++i) b.expect(b.input(i).shape == x, "images of one shape");
  b.expect(b.output().shape == x, "a result of x's shape");
  return {x[0], x[2], x[3], x[1]};
}

}  // namespace

// x, gate, residual? -> x * gate (+ residual) (+ ReLU)
void gate(Builder& b) {
  const bool hasResidual = b.step().flag("residual");
  b.expectArity(size_t{2} + hasResidual, size_t{2} + hasResidual);
  const Images images = expectGated(b);
  BiasActArguments arguments;
  arguments.dtype = b.outputType();
  arguments.images = images.batch;
  arguments.plane = images.plane();
  arguments.channels = images.channels;
  arguments.relu = b.step().flag("relu");
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId by = b.read(1);
  const BufferId residual = hasResidual ? b.read(2, Layout::channelsLast) : none;
  const BufferId y = b.write(0, Layout::channelsLast);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.gate = p.at(by);
    arguments.residual = p.at(residual);
    arguments.y = p.at(y);
    launchBiasAct(stream, arguments);
  });
}

// x, gate, dy, with `relu` what it made of the result -> dx, dgate, with `residual` its gradient: what the ReLU lets through
void gateGradient(Builder& b) {
  const bool relu = b.step().flag("relu");
  const bool residual = b.step().flag("residual");
  b.expect(relu || !residual, "a residual's gradient with a ReLU only: otherwise it is dy");
  b.expectArity(size_t{3} + relu, size_t{3} + relu, size_t{2} + residual);
  GateGradientArguments arguments;
  arguments.images = expectGated(b);
  arguments.dtype = b.outputType();
  b.expect(b.output(1).shape == b.input(1).shape, "a gradient of the gate's shape");
  if (residual) b.expect(b.output(2).shape == b.output().shape, "a residual's gradient of x's shape");
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId by = b.read(1);
  const BufferId dy = b.read(2, Layout::channelsLast);
  const BufferId y = relu ? b.read(3, Layout::channelsLast) : none;
  const BufferId dx = b.write(0, Layout::channelsLast);
  const BufferId dgate = b.write(1);
  const BufferId masked = residual ? b.write(2, Layout::channelsLast) : none;
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.gate = p.at(by);
    arguments.dy = p.at(dy);
    arguments.activated = p.at(y);
    arguments.dx = p.at(dx);
    arguments.dgate = p.at(dgate);
    arguments.residual = p.at(masked);
    launchGateGradient(stream, arguments);
  });
}

}  // namespace seresnet::cuda
