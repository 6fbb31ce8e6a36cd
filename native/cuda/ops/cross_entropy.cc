#include "cuda/kernels/cross_entropy.h"

#include "ops.h"

namespace seresnet::cuda {

namespace {

Reduction reductionOf(const Step& step) {
  const std::string name = step.text("reduction");
  if (name == "none") return Reduction::none;
  return name == "sum" ? Reduction::sum : Reduction::mean;
}

void expectTargets(Builder& b) {
  const Shape& shape = b.input(0).shape;
  const DType targets = b.input(1).dtype;
  b.expect(shape.size() == 2 && b.input(1).shape == Shape{shape[0]}, "logits [N, C] and targets [N]");
  b.expect(isFloat(b.input(0).dtype) && isFloat(b.output().dtype), "logits of a float dtype");
  b.expect(targets == DType::int32 || targets == DType::int64, "int32 or int64 targets");
}

}  // namespace

// Cross-entropy of logits [N, C] and class indices [N].
void crossEntropy(Builder& b) {
  b.expectArity(2, 2);
  expectTargets(b);
  const Shape& shape = b.input(0).shape;
  CrossEntropyArguments arguments;
  arguments.dtype = b.inputType(0);
  arguments.targetType = b.input(1).dtype;
  arguments.lossType = b.outputType();
  arguments.batch = shape[0];
  arguments.classes = shape[1];
  arguments.labelSmoothing = b.step().number("labelSmoothing");
  arguments.reduction = reductionOf(b.step());
  const bool each = arguments.reduction == Reduction::none;
  b.expect(b.output().size() == (each ? shape[0] : 1), "a scalar, or [N] for reduction none");
  const BufferId logits = b.read(0);
  const BufferId targets = b.read(1);
  const BufferId loss = b.write(0);
  const BufferId invalid = b.scratch(sizeof(int32_t));
  const BufferId workspace = each ? none : b.scratch(static_cast<size_t>(shape[0]) * sizeof(float));
  b.check(invalid, [batch = shape[0], classes = shape[1], at = b.planInput(1), type = b.input(1).dtype](
                       int32_t found, const Run& run) {
    const int64_t position = batch - found;
    std::string got;
    if (at >= 0) {
      const HostMemory& given = *run.inputs[static_cast<size_t>(at)];
      got = ", got " + std::to_string(type == DType::int32 ? given.data<int32_t>()[position]
                                                           : given.data<int64_t>()[position]);
    }
    return Error("crossEntropy",
                 "expected targets from 0 to " + std::to_string(classes - 1) + got + " at position " +
                     std::to_string(position),
                 Error::argument);
  });
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    gpu::clear(stream, p.at(invalid), sizeof(int32_t));
    arguments.logits = p.at(logits);
    arguments.targets = p.at(targets);
    arguments.loss = p.at(loss);
    arguments.invalid = p.at<int32_t>(invalid);
    arguments.workspace = p.at(workspace);
    launchCrossEntropy(stream, arguments);
  });
}

// softmax(logits) minus the (smoothed) target, times dL/dloss: logits [N, C], targets [N], dy ([] or [N]) -> dx.
void crossEntropyGradient(Builder& b) {
  b.expectArity(3, 3);
  expectTargets(b);
  const Shape& shape = b.input(0).shape;
  b.expect(b.output().shape == shape && isFloat(b.input(2).dtype), "gradients of the logits' shape");
  CrossEntropyGradientArguments arguments;
  arguments.dtype = b.outputType();
  arguments.targetType = b.input(1).dtype;
  arguments.batch = shape[0];
  arguments.classes = shape[1];
  arguments.labelSmoothing = b.step().number("labelSmoothing");
  arguments.reduction = reductionOf(b.step());
  b.expect(b.input(2).size() == (arguments.reduction == Reduction::none ? shape[0] : 1), "a gradient of the loss");
  const BufferId logits = b.read(0);
  const BufferId targets = b.read(1);
  const auto dloss = b.readVector(2);
  const BufferId dlogits = b.write(0);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.logits = p.at(logits);
    arguments.dlogits = p.at(dlogits);
    arguments.targets = p.at(targets);
    arguments.dloss = {p.at(dloss.first), dloss.second};
    launchCrossEntropyGradient(stream, arguments);
  });
}

}  // namespace seresnet::cuda
