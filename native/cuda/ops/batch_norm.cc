#include "cuda/kernels/batch_norm_act.h"

#include <algorithm>

#include "cuda/kernels/layout.h"
#include "ops.h"

namespace seresnet::cuda {

namespace {

// The kernels see x [N, C, ...] as rows of channels: channels-last images, or matrices. What has another rank is brought
// into that order and back as if it were images of one row.
bool isRows(const Shape& shape) { return shape.size() == 4 || shape.size() == 2; }

Layout rowsLayout(const Shape& shape) { return shape.size() == 4 ? Layout::channelsLast : Layout::plain; }

Images asImages(const Shape& shape) {
  const int64_t channels = shape[1];
  const int64_t images = shape[0];
  return {images, 1, images * channels == 0 ? 0 : sizeOf(shape) / (images * channels), channels};
}

BufferId readRows(Builder& b, size_t input) {
  const Shape& shape = b.input(input).shape;
  if (isRows(shape)) return b.read(input, rowsLayout(shape));
  ToChannelsLastArguments arguments;
  arguments.from = arguments.to = b.inputType(input);
  arguments.images = asImages(shape);
  arguments.outChannels = shape[1];
  const BufferId x = b.read(input);
  const BufferId y = b.scratch(static_cast<size_t>(sizeOf(shape)) * deviceBytes(arguments.to));
  b.emit("to rows", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchToChannelsLast(stream, arguments);
  });
  return b.touch(y);
}

struct RowsOut {
  BufferId rows, output;
};

RowsOut writeRows(Builder& b, size_t output) {
  const Shape& shape = b.output(output).shape;
  if (isRows(shape)) {
    const BufferId y = b.write(output, rowsLayout(shape));
    return {y, y};
  }
  const BufferId rows = b.scratch(static_cast<size_t>(sizeOf(shape)) * deviceBytes(b.outputType(output)));
  return {rows, b.write(output)};
}

void finishRows(Builder& b, const RowsOut& out, size_t output) {
  if (out.rows == out.output) return;
  const Shape& shape = b.output(output).shape;
  ToChannelsFirstArguments arguments;
  arguments.from = arguments.to = b.outputType(output);
  arguments.images = asImages(shape);
  arguments.inChannels = shape[1];
  b.touch(out.rows);
  b.touch(out.output);
  b.emit("from rows", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(out.rows);
    arguments.y = p.at(out.output);
    launchToChannelsFirst(stream, arguments);
  });
}

// A channel vector among the inputs, or nothing.
using VectorAt = std::pair<BufferId, DType>;
constexpr VectorAt nothing{none, DType::float32};

// Floats, of which those that are no vectors have one dtype: parameters and statistics may be more precise.
void expectImageFloats(Builder& b) {
  const auto check = [&](const Slot& slot) {
    b.expect(isFloat(slot.dtype), "tensors of a float dtype");
    b.expect(slot.shape.size() < 2 || b.held(slot) == b.outputType(), "images of one float dtype");
  };
  for (size_t i = 0; i < b.inputs(); ++i) check(b.input(i));
  for (size_t i = 0; i < b.step().outputs.size(); ++i) check(b.output(i));
}

void expectImages(Builder& b) {
  expectImageFloats(b);
  b.expect(b.input(0).shape.size() >= 2 && b.output().shape == b.input(0).shape, "x [N, C, ...] and y of its shape");
}

}  // namespace

// x, mean, variance, gamma?, beta?, residual?
void batchNorm(Builder& b) {
  const bool act = b.step().op == "batch_norm_act";
  b.expectArity(3, act ? 6 : 5);
  expectImages(b);
  const bool hasResidual = act && b.step().flag("residual");
  const bool affine = act ? b.step().flag("affine") : b.inputs() > 3;
  b.expect(b.inputs() == size_t{3} + 2 * affine + hasResidual, "as many inputs as its attributes say");
  const Shape& shape = b.output().shape;
  const size_t last = b.inputs() - 1;
  for (size_t i = 1; i < size_t{3} + 2 * affine; ++i) b.expect(b.input(i).shape == Shape{shape[1]}, "vectors [C]");
  if (hasResidual) b.expect(b.input(last).shape == shape, "a residual of the output's shape");
  BatchNormArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = b.step().number("eps");
  arguments.relu = act && b.step().flag("relu");
  const BufferId x = readRows(b, 0);
  const BufferId residual = hasResidual ? readRows(b, last) : none;
  const VectorAt mean = b.readVector(1), variance = b.readVector(2);
  const VectorAt gamma = affine ? b.readVector(3) : nothing, beta = affine ? b.readVector(4) : nothing;
  const RowsOut y = writeRows(b, 0);
  b.touch(x);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    const auto vector = [&](const VectorAt& at) { return Vector{p.at(at.first), at.second}; };
    arguments.x = p.at(x);
    arguments.residual = p.at(residual);
    arguments.y = p.at(y.rows);
    arguments.mean = vector(mean);
    arguments.variance = vector(variance);
    arguments.gamma = vector(gamma);
    arguments.beta = vector(beta);
    launchBatchNorm(stream, arguments);
  });
  finishRows(b, y, 0);
}

// x, gamma [C]?, beta [C]?, residual? -> y (+ residual) (+ ReLU), the batch's mean [C] and biased variance [C]
void batchNormTrain(Builder& b) {
  const bool hasResidual = b.step().flag("residual");
  b.expectArity(size_t{1} + hasResidual, size_t{3} + hasResidual, 3);
  expectImages(b);
  const Shape& shape = b.output().shape;
  const bool affine = b.inputs() == size_t{3} + hasResidual;
  const size_t last = b.inputs() - 1;
  b.expect(affine || b.inputs() == size_t{1} + hasResidual, "gamma and beta, or neither");
  for (size_t i = 1; affine && i < 3; ++i) b.expect(b.input(i).shape == Shape{shape[1]}, "vectors [C]");
  if (hasResidual) b.expect(b.input(last).shape == shape, "a residual of the output's shape");
  b.expect(b.output(1).shape == Shape{shape[1]} && b.output(2).shape == Shape{shape[1]}, "statistics [C]");
  BatchNormTrainArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = b.step().number("eps");
  arguments.relu = b.step().flag("relu");
  const BufferId x = readRows(b, 0);
  const VectorAt gamma = affine ? b.readVector(1) : nothing, beta = affine ? b.readVector(2) : nothing;
  const BufferId residual = hasResidual ? readRows(b, last) : none;
  const BufferId workspace = b.scratch(batchNormWorkspace(arguments.rows, arguments.channels));
  const RowsOut y = writeRows(b, 0);
  const Form statistics{Layout::plain, DType::float32, 0};  // their precision is the running averages'
  const BufferId mean = b.write(1, statistics);
  const BufferId variance = b.write(2, statistics);
  b.touch(x);
  b.passes(x, 2);  // for the statistics, then to be normalised with them
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.residual = p.at(residual);
    arguments.y = p.at(y.rows);
    arguments.gamma = {p.at(gamma.first), gamma.second};
    arguments.beta = {p.at(beta.first), beta.second};
    arguments.mean = {p.at(mean), DType::float32};
    arguments.variance = {p.at(variance), DType::float32};
    arguments.workspace = p.at(workspace);
    launchBatchNormTrain(stream, arguments);
  });
  finishRows(b, y, 0);
}

// running mean [C] and variance [C], the batch's mean [C] and biased variance [C], momentum -> the new running ones
void runningStatistics(Builder& b) {
  b.expectArity(5, 5, 2);
  const Shape& perChannel = b.input(0).shape;
  for (size_t i = 0; i < 5; ++i) b.expect(isFloat(b.input(i).dtype), "tensors of a float dtype");
  for (size_t i = 0; i < 4; ++i) b.expect(b.input(i).shape == perChannel, "statistics [C]");
  for (size_t i = 0; i < 2; ++i)
    b.expect(isFloat(b.output(i).dtype) && b.output(i).shape == perChannel, "statistics [C]");
  b.expect(b.input(4).size() == 1, "a scalar momentum");
  RunningStatisticsArguments arguments;
  arguments.channels = b.output().size();
  arguments.count = b.step().number("count");
  VectorAt in[4];
  for (size_t i = 0; i < 4; ++i) in[i] = b.readVector(i);
  const Form plainFloat{Layout::plain, DType::float32, 0};
  const BufferId momentum = b.read(4, plainFloat);
  const BufferId mean = b.write(0);
  const BufferId variance = b.write(1);
  b.emit("", [=, types = std::pair{b.outputType(0), b.outputType(1)}](Stream stream, const Pointers& p) mutable {
    const auto vector = [&](const VectorAt& at) { return Vector{p.at(at.first), at.second}; };
    arguments.mean = vector(in[0]);
    arguments.variance = vector(in[1]);
    arguments.batchMean = vector(in[2]);
    arguments.batchVariance = vector(in[3]);
    arguments.newMean = {p.at(mean), types.first};
    arguments.newVariance = {p.at(variance), types.second};
    arguments.momentum = p.at<float>(momentum);
    launchRunningStatistics(stream, arguments);
  });
}

// x, mean, variance, dy, gamma?, with `relu` what it made of the result -> dx, dgamma, dbeta, with `residual` its gradient:
// what the ReLU lets through
void batchNormGradient(Builder& b) {
  const bool relu = b.step().flag("relu");
  const bool residual = b.step().flag("residual");
  b.expect(relu || !residual, "a residual's gradient with a ReLU only: otherwise it is dy");
  b.expectArity(size_t{4} + relu, size_t{5} + relu, size_t{3} + residual);
  const bool affine = b.inputs() == size_t{5} + relu;
  const size_t last = b.inputs() - 1;
  expectImageFloats(b);
  const Shape& shape = b.input(0).shape;
  b.expect(shape.size() >= 2 && b.input(3).shape == shape && b.output(0).shape == shape, "x, dy and dx [N, C, ...]");
  for (const size_t i : {size_t{1}, size_t{2}, affine ? size_t{4} : size_t{1}})
    b.expect(b.input(i).shape == Shape{shape[1]}, "vectors [C]");
  if (relu) b.expect(b.input(last).shape == shape, "the ReLU's result of x's shape");
  b.expect(b.output(1).shape == Shape{shape[1]} && b.output(2).shape == Shape{shape[1]}, "gradients [C]");
  if (residual) b.expect(b.output(3).shape == shape, "a residual's gradient of x's shape");
  BatchNormGradientArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = b.step().number("eps");
  arguments.training = b.step().flag("training");
  const BufferId x = readRows(b, 0);
  const BufferId dy = readRows(b, 3);
  const VectorAt mean = b.readVector(1), variance = b.readVector(2);
  const VectorAt gamma = affine ? b.readVector(4) : nothing;
  const BufferId activated = relu ? readRows(b, last) : none;
  const BufferId workspace = b.scratch(batchNormWorkspace(arguments.rows, arguments.channels));
  const RowsOut dx = writeRows(b, 0);
  const Form vector{Layout::plain, DType::float32, 0};
  const BufferId dgamma = b.write(1, vector);
  const BufferId dbeta = b.write(2, vector);
  const RowsOut masked = residual ? writeRows(b, 3) : RowsOut{none, none};
  b.touch(x);
  // for the sums, then for dx; what the ReLU lets through is kept where the residual's gradient is wanted, and read again
  b.passes(x, 2);
  if (residual) {
    b.passes(masked.rows, 2);
  } else {
    b.passes(dy, 2);
    b.passes(activated, 2);
  }
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.dy = p.at(dy);
    arguments.activated = p.at(activated);
    arguments.dx = p.at(dx.rows);
    arguments.residual = p.at(masked.rows);
    arguments.mean = {p.at(mean.first), mean.second};
    arguments.variance = {p.at(variance.first), variance.second};
    arguments.gamma = {p.at(gamma.first), gamma.second};
    arguments.dgamma = {p.at(dgamma), DType::float32};
    arguments.dbeta = {p.at(dbeta), DType::float32};
    arguments.workspace = p.at(workspace);
    launchBatchNormGradient(stream, arguments);
  });
  finishRows(b, dx, 0);
  if (residual) finishRows(b, masked, 3);
}

// weight [O, ...], bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]? -> the weight and bias of a convolution that
// does what convolution and batch norm did
void foldBatchNorm(Builder& b) {
  b.expectArity(3, 6, 2);
  b.expectFloats();
  const bool hasBias = b.step().flag("bias");
  const bool affine = b.step().flag("affine");
  b.expect(b.inputs() == size_t{3} + hasBias + 2 * affine, "as many inputs as its attributes say");
  const Shape& weight = b.input(0).shape;
  b.expect(!weight.empty() && b.output(0).shape == weight, "a weight [O, ...]");
  b.expect(b.output(1).shape == Shape{weight[0]}, "a bias [O]");
  for (size_t i = 1; i < b.inputs(); ++i) b.expect(b.input(i).shape == Shape{weight[0]}, "vectors [O]");
  FoldBatchNormArguments arguments;
  arguments.dtype = b.outputType();
  arguments.outputs = weight[0];
  arguments.fan = weight[0] == 0 ? 0 : sizeOf(weight) / weight[0];
  arguments.eps = b.step().number("eps");
  size_t next = 1;
  const BufferId w = b.read(0);
  const VectorAt bias = hasBias ? b.readVector(next++) : nothing;
  const VectorAt mean = b.readVector(next++);
  const VectorAt variance = b.readVector(next++);
  const VectorAt gamma = affine ? b.readVector(next++) : nothing;
  const VectorAt beta = affine ? b.readVector(next++) : nothing;
  const BufferId newWeight = b.write(0);
  const BufferId newBias = b.write(1);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    const auto vector = [&](const VectorAt& at) { return Vector{p.at(at.first), at.second}; };
    arguments.weight = p.at(w);
    arguments.newWeight = p.at(newWeight);
    arguments.bias = vector(bias);
    arguments.mean = vector(mean);
    arguments.variance = vector(variance);
    arguments.gamma = vector(gamma);
    arguments.beta = vector(beta);
    arguments.newBias = {p.at(newBias), arguments.dtype};
    launchFoldBatchNorm(stream, arguments);
  });
}

}  // namespace seresnet::cuda
