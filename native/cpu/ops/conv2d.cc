#include <algorithm>
#include <cstring>

#include "cpu/convolution/conv_algorithm.h"
#include "cpu/device/dnnl_adapter.h"
#include "ops.h"

namespace seresnet::cpu {

namespace {

// Groups of few channels have no fast implementation. Where several side by side may have one, builds the step with
// pairs of groups merged, their weights with zeros between them, until it does.
bool mergeGroups(Builder& b, const ConvolutionGeometry& g) {
  constexpr int64_t most = 16;  // channels of a group, the widest vector's
  const Shape w = b.input(1).shape;
  const int64_t in = w[1];
  const int64_t out = w[0] / g.groups;
  const HostMemory* weights = b.constant(1);
  if (weights == nullptr || g.groups % 2 != 0 || in >= most || out >= most || most % in != 0 || most % out != 0)
    return false;
  const int64_t taps = w[2] * w[3];
  auto merged = std::make_shared<HostMemory>(2 * weights->bytes());
  auto* to = merged->data<float>();
  std::fill_n(to, 2 * sizeOf(w), 0.F);
  for (int64_t o = 0; o < w[0]; ++o)
    std::copy_n(weights->data<float>() + o * in * taps, in * taps, to + (2 * o + o / out % 2) * in * taps);
  Step step = b.step();
  step.inputs[1] = b.addConstant({w[0], 2 * in, w[2], w[3]}, std::move(merged));
  step.attributes["groups"] = static_cast<double>(g.groups / 2);
  b.build(step);
  return true;
}

// The weights in the candidate's order: made at load where they are constant, in every run otherwise.
BufferId weightsFor(Builder& b, const ConvolutionCandidate& candidate) {
  if (!candidate.order) return b.read(1);
  if (b.isConstant(1))
    return b.derived(1, candidate.weightsOrder,
                     [&](const HostMemory& plain) { return orderedWeights(candidate, plain); });
  const BufferId source = b.read(1);
  const BufferId target = b.scratch(candidate.weightsBytes);
  b.emit("weights",
         [=, order = candidate.order](const Pointers& p) { order(p.at(source), p.at<void>(target)); });
  return b.touch(target);
}

}  // namespace

void emitConvolution(Builder& b, const ConvolutionOperands& operands, const ConvolutionCandidate& candidate,
                     BufferId gate) {
  const Layout layout = candidate.layout;
  if (gate >= 0) b.touch(gate);
  const BufferId weights = weightsFor(b, candidate);
  const BufferId x = b.read(0, layout);
  const BufferId bias = operands.bias >= 0 ? b.read(static_cast<size_t>(operands.bias)) : -1;
  BufferId residual = -1;
  BufferId y = -1;
  if (operands.residual >= 0) {
    const auto at = static_cast<size_t>(operands.residual);
    residual = b.read(at, layout);
    y = b.overwrite(at, layout);
    if (y >= 0) residual = -1;  // there it is already
  }
  if (y < 0) y = b.write(0, layout);
  const BufferId scratch = candidate.scratchBytes > 0 ? b.scratch(candidate.scratchBytes) : -1;
  const size_t bytes = bytesIn(b.output(), layout);
  b.losesNaN |= candidate.losesNaN;
  const std::string implementation = candidate.implementation + (gate >= 0 ? ", gate as it stores" : "");
  b.emit(implementation, [=, run = candidate.run](const Pointers& p) {
    if (residual >= 0) std::memcpy(p.at<void>(y), p.at<void>(residual), bytes);
    run({p.at<void>(x), p.at<void>(weights), p.maybe(bias), p.maybe(gate), p.at<void>(y), p.maybe<void>(scratch),
         p.keepsNaN()});
  });
}

// conv2d: x, weight [O, C / groups, kh, kw], bias [O]?; fused_conv2d: the same and a residual?, then ReLU?.
void conv2d(Builder& b) {
  const ops::Conv2d op(b);
  const ConvolutionOperands found{op.bias, op.residual, op.relu};
  if (b.output().size() == 0) {
    b.write(0);
    return b.emit("nothing", [](const Pointers&) {});
  }
  try {
    const ConvolutionCandidate candidate = chooseConvolution(b, found, op.geometry);
    if (candidate.isSlow() && mergeGroups(b, op.geometry)) return;
    emitConvolution(b, found, candidate);
  } catch (const dnnl::error& error) {
    throw Error(b.step().op, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace seresnet::cpu
