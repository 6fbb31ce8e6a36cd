#include "cuda/kernels/elementwise.h"

#include "bind.h"
#include "ops.h"
#include "ops/broadcast.h"
#include "ops/elementwise.h"
#include "walk.h"

namespace seresnet::cuda {

void unary(Builder& b) {
  const ops::Unary op = ops::unary(b);
  b.expectOneDtype();
  const Layout layout = b.common();
  UnaryArguments arguments;
  arguments.op = op;
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  emitLaunch(b, "", launchUnary, arguments,
             std::tuple{bind<&UnaryArguments::x>(b.read(0, layout)), bind<&UnaryArguments::y>(b.write(0, layout))});
}

// Sum, difference, product or quotient with numpy's broadcasting.
void binary(Builder& b) {
  const ops::Binary op = ops::binary(b);
  const Shape& shape = b.output().shape;
  const Layout layout = shape.size() == 4 ? b.common() : Layout::plain;
  std::vector<std::vector<int64_t>> steps;
  BufferId operands[2];
  for (size_t i = 0; i < 2; ++i) {
    const Shape& own = b.input(i).shape;
    const Layout in = own.size() == 4 ? layout : Layout::plain;
    operands[i] = b.read(i, in);
    steps.push_back(ops::broadcastStrides(b, own, Builder::strides(own, in), shape));
  }
  BinaryArguments arguments;
  arguments.op = op;
  arguments.dtype = b.outputType();
  arguments.walk = walkOver(shape, layout, steps);
  const BufferId y = b.write(0, layout);
  b.emit("", [=, left = operands[0], right = operands[1]](Stream stream, const Pointers& p) mutable {
    arguments.a = p.at(left);
    arguments.b = p.at(right);
    arguments.y = p.at(y);
    launchBinary(stream, arguments);
  });
}

void cast(Builder& b) {
  ops::checkCast(b);
  const bool ordered = isFloat(b.input(0).dtype) && isFloat(b.output().dtype);
  const Layout layout = ordered ? b.common() : Layout::plain;
  CastArguments arguments;
  arguments.from = b.inputType(0);
  arguments.to = b.outputType();
  arguments.count = b.output().size();
  emitLaunch(b, "", launchCast, arguments,
             std::tuple{bind<&CastArguments::x>(b.read(0, layout)), bind<&CastArguments::y>(b.write(0, layout))});
}

void fill(Builder& b) {
  const ops::Fill op(b);
  FillArguments arguments;
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  arguments.value = op.value;
  emitLaunch(b, "", launchFill, arguments, std::tuple{bind<&FillArguments::y>(b.write(0))});
}

// scale * x, repeated along the dims where x has extent 1.
void broadcast(Builder& b) {
  const ops::Broadcast op(b);
  b.expectOneDtype();
  BroadcastArguments arguments;
  arguments.dtype = b.outputType();
  arguments.scale = op.scale;
  arguments.walk = walkOver(b.output().shape, Layout::plain, {op.strides});
  emitLaunch(b, "", launchBroadcast, arguments,
             std::tuple{bind<&BroadcastArguments::x>(b.read(0)), bind<&BroadcastArguments::y>(b.write(0))});
}

// y of the activation, dy -> dx
void activationGradient(Builder& b) {
  ops::checkActivationGradient(b);
  b.expectOneDtype();
  const Layout layout = b.common();
  ActivationGradientArguments arguments;
  arguments.op = b.step().op == "relu_gradient" ? Unary::relu : Unary::sigmoid;
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  emitLaunch(b, "", launchActivationGradient, arguments,
             std::tuple{bind<&ActivationGradientArguments::y>(b.read(0, layout)),
                        bind<&ActivationGradientArguments::dy>(b.read(1, layout)),
                        bind<&ActivationGradientArguments::dx>(b.write(0, layout))});
}

}  // namespace seresnet::cuda
