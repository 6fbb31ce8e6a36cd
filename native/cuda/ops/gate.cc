#include "cuda/kernels/gate.h"

#include "cuda/kernels/bias_act.h"
#include "ops.h"
#include "ops/gate.h"

// The last product of squeeze-and-excitation with its tail, and its gradients, in training plans.
namespace seresnet::cuda {

namespace {

Images imagesOf(const Builder& b) {
  const Shape& x = b.input(0).shape;
  return {x[0], x[2], x[3], x[1]};
}

}  // namespace

// x, gate, residual? -> x * gate (+ residual) (+ ReLU)
void gate(Builder& b) {
  const ops::Gate op(b);
  b.expectOneDtype();
  const Images images = imagesOf(b);
  BiasActArguments arguments;
  arguments.dtype = b.outputType();
  arguments.images = images.batch;
  arguments.plane = images.plane();
  arguments.channels = images.channels;
  arguments.relu = op.relu;
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId by = b.read(1);
  const BufferId residual = op.residual ? b.read(2, Layout::channelsLast) : none;
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
  const ops::GateGradient op(b);
  b.expectOneDtype();
  GateGradientArguments arguments;
  arguments.images = imagesOf(b);
  arguments.dtype = b.outputType();
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId by = b.read(1);
  const BufferId dy = b.read(2, Layout::channelsLast);
  const BufferId y = op.relu ? b.read(3, Layout::channelsLast) : none;
  const BufferId dx = b.write(0, Layout::channelsLast);
  const BufferId dgate = b.write(1);
  const BufferId masked = op.residual ? b.write(2, Layout::channelsLast) : none;
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
