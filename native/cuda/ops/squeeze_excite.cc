#include "squeeze_excite.h"

#include "bind.h"
#include "ops.h"
#include "ops/squeeze_excite.h"

namespace seresnet::cuda {

Excitation readExcitation(Builder& b, size_t at, int64_t hidden) {
  return {hidden, b.read(at), b.read(at + 2), b.readVector(at + 1), b.readVector(at + 3)};
}

void emitSqueezeExcite(Builder& b, const Images& images, bool relu, BufferId x, const Excitation& e, BufferId residual,
                       BufferId y) {
  SqueezeExciteArguments arguments;
  arguments.dtype = b.outputType();
  arguments.images = images;
  arguments.hidden = e.hidden;
  arguments.relu = relu;
  const BufferId workspace = b.scratch(squeezeExciteWorkspace(images, arguments.dtype));
  b.computes(4.0 * static_cast<double>(images.batch * images.channels * e.hidden));
  emitLaunch(b, "", launchSqueezeExcite, arguments,
             std::tuple{bind<&SqueezeExciteArguments::x>(x), bind<&SqueezeExciteArguments::residual>(residual),
                        bind<&SqueezeExciteArguments::y>(y), bind<&SqueezeExciteArguments::w1>(e.w1),
                        bind<&SqueezeExciteArguments::w2>(e.w2), bind<&SqueezeExciteArguments::b1>(e.b1),
                        bind<&SqueezeExciteArguments::b2>(e.b2), bind<&SqueezeExciteArguments::workspace>(workspace)});
}

// x, W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual? -> x * sigmoid(W2 relu(W1 mean(x) + b1) + b2) (+ residual) (+ ReLU)
void squeezeExcite(Builder& b) {
  const ops::SqueezeExcite op(b);
  b.expectOneDtype();
  const Shape& x = b.input(0).shape;
  const BufferId image = b.read(0, Layout::channelsLast);
  const Excitation excitation = readExcitation(b, 1, op.hidden);
  const BufferId residual = op.residual ? b.read(5, Layout::channelsLast) : none;
  const BufferId y = b.write(0, Layout::channelsLast);
  emitSqueezeExcite(b, {x[0], x[2], x[3], x[1]}, op.relu, image, excitation, residual, y);
}

}  // namespace seresnet::cuda
