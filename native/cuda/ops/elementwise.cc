#include "cuda/kernels/elementwise.h"

#include "ops.h"
#include "ops/broadcast.h"
#include "ops/elementwise.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

Unary unaryNamed(const std::string& op) {
  if (op == "relu") return Unary::relu;
  if (op == "sigmoid") return Unary::sigmoid;
  if (op == "sqrt") return Unary::sqrt;
  if (op == "exp") return Unary::exp;
  return op == "log" ? Unary::log : Unary::neg;
}

Binary binaryNamed(const std::string& op) {
  if (op == "add") return Binary::add;
  if (op == "sub") return Binary::sub;
  return op == "mul" ? Binary::mul : Binary::div;
}

}  // namespace

void unary(Builder& b) {
  ops::checkUnary(b);
  b.expectOneDtype();
  const Layout layout = b.common();
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0, layout);
  UnaryArguments arguments;
  arguments.op = unaryNamed(b.step().op);
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchUnary(stream, arguments);
  });
}

// Sum, difference, product or quotient with numpy's broadcasting.
void binary(Builder& b) {
  ops::checkBinary(b);
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
  arguments.op = binaryNamed(b.step().op);
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
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0, layout);
  CastArguments arguments;
  arguments.from = b.inputType(0);
  arguments.to = b.outputType();
  arguments.count = b.output().size();
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchCast(stream, arguments);
  });
}

void fill(Builder& b) {
  const ops::Fill op(b);
  FillArguments arguments;
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  arguments.value = op.value;
  const BufferId y = b.write(0);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.y = p.at(y);
    launchFill(stream, arguments);
  });
}

// scale * x, repeated along the dims where x has extent 1.
void broadcast(Builder& b) {
  const ops::Broadcast op(b);
  b.expectOneDtype();
  BroadcastArguments arguments;
  arguments.dtype = b.outputType();
  arguments.scale = op.scale;
  arguments.walk = walkOver(b.output().shape, Layout::plain, {op.strides});
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchBroadcast(stream, arguments);
  });
}

// y of the activation, dy -> dx
void activationGradient(Builder& b) {
  ops::checkActivationGradient(b);
  b.expectOneDtype();
  const Layout layout = b.common();
  const BufferId y = b.read(0, layout);
  const BufferId dy = b.read(1, layout);
  const BufferId dx = b.write(0, layout);
  ActivationGradientArguments arguments;
  arguments.op = b.step().op == "relu_gradient" ? Unary::relu : Unary::sigmoid;
  arguments.dtype = b.outputType();
  arguments.count = b.output().size();
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.y = p.at(y);
    arguments.dy = p.at(dy);
    arguments.dx = p.at(dx);
    launchActivationGradient(stream, arguments);
  });
}

}  // namespace seresnet::cuda
