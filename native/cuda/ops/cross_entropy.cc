#include "cuda/kernels/cross_entropy.h"

#include "bind.h"
#include "ops.h"
#include "ops/cross_entropy.h"

namespace seresnet::cuda {

namespace {

Reduction reductionOf(const ops::CrossEntropy& op) {
  if (op.each) return Reduction::none;
  return op.mean ? Reduction::mean : Reduction::sum;
}

}  // namespace

// Cross-entropy of logits [N, C] and class indices [N].
void crossEntropy(Builder& b) {
  const ops::CrossEntropy op(b);
  CrossEntropyArguments arguments;
  arguments.dtype = b.inputType(0);
  arguments.targetType = b.input(1).dtype;
  arguments.lossType = b.outputType();
  arguments.batch = op.batch;
  arguments.classes = op.classes;
  arguments.labelSmoothing = op.labelSmoothing;
  arguments.reduction = reductionOf(op);
  const BufferId logits = b.read(0);
  const BufferId targets = b.read(1);
  const BufferId loss = b.write(0);
  const BufferId invalid = b.scratch(sizeof(int32_t));
  const BufferId workspace = op.each ? none : b.scratch(static_cast<size_t>(op.batch) * sizeof(float));
  b.check(invalid, [batch = op.batch, classes = op.classes, at = b.planInput(1), type = b.input(1).dtype](
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
  const ops::CrossEntropy op(b);
  CrossEntropyGradientArguments arguments;
  arguments.dtype = b.outputType();
  arguments.targetType = b.input(1).dtype;
  arguments.batch = op.batch;
  arguments.classes = op.classes;
  arguments.labelSmoothing = op.labelSmoothing;
  arguments.reduction = reductionOf(op);
  emitLaunch(b, "", launchCrossEntropyGradient, arguments,
             std::tuple{bind<&CrossEntropyGradientArguments::logits>(b.read(0)),
                        bind<&CrossEntropyGradientArguments::targets>(b.read(1)),
                        bind<&CrossEntropyGradientArguments::dloss>(b.readVector(2)),
                        bind<&CrossEntropyGradientArguments::dlogits>(b.write(0))});
}

}  // namespace seresnet::cuda
