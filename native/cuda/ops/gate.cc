#include "cuda/kernels/gate.h"

#include "bind.h"
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
  emitLaunch(b, "", launchBiasAct, arguments,
             std::tuple{bind<&BiasActArguments::x>(b.read(0, Layout::channelsLast)),
                        bind<&BiasActArguments::gate>(b.read(1)),
                        bind<&BiasActArguments::residual>(op.residual ? b.read(2, Layout::channelsLast) : none),
                        bind<&BiasActArguments::y>(b.write(0, Layout::channelsLast))});
}

// x, gate, dy, with `relu` what it made of the result -> dx, dgate, with `residual` its gradient: what the ReLU lets through
void gateGradient(Builder& b) {
  const ops::GateGradient op(b);
  b.expectOneDtype();
  GateGradientArguments arguments;
  arguments.images = imagesOf(b);
  arguments.dtype = b.outputType();
  using Arguments = GateGradientArguments;
  emitLaunch(b, "", launchGateGradient, arguments,
             std::tuple{bind<&Arguments::x>(b.read(0, Layout::channelsLast)),
                        bind<&Arguments::gate>(b.read(1)),
                        bind<&Arguments::dy>(b.read(2, Layout::channelsLast)),
                        bind<&Arguments::activated>(op.relu ? b.read(3, Layout::channelsLast) : none),
                        bind<&Arguments::dx>(b.write(0, Layout::channelsLast)),
                        bind<&Arguments::dgate>(b.write(1)),
                        bind<&Arguments::residual>(op.residual ? b.write(2, Layout::channelsLast) : none)});
}

}  // namespace seresnet::cuda
