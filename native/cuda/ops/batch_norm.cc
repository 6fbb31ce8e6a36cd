#include "cuda/kernels/batch_norm_act.h"

#include <algorithm>

#include "cuda/kernels/layout.h"
#include "ops.h"
#include "ops/batch_norm.h"

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

// What is no vector has one dtype: parameters and statistics may be more precise.
void expectImagesOfOneDtype(const Builder& b) {
  const auto check = [&](const Slot& slot) {
    b.expect(slot.shape.size() < 2 || b.held(slot) == b.outputType(), "images of one float dtype");
  };
  for (size_t i = 0; i < b.inputs(); ++i) check(b.input(i));
  for (size_t i = 0; i < b.step().outputs.size(); ++i) check(b.output(i));
}

}  // namespace

// x, mean, variance, gamma?, beta?, residual?
void batchNorm(Builder& b) {
  const ops::BatchNorm op(b);
  expectImagesOfOneDtype(b);
  const Shape& shape = b.output().shape;
  BatchNormArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = op.eps;
  arguments.relu = op.relu;
  const BufferId x = readRows(b, 0);
  const BufferId residual = op.residual >= 0 ? readRows(b, static_cast<size_t>(op.residual)) : none;
  const VectorAt mean = b.readVector(1), variance = b.readVector(2);
  const VectorAt gamma = op.affine ? b.readVector(3) : nothing, beta = op.affine ? b.readVector(4) : nothing;
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
  const ops::BatchNormTrain op(b);
  expectImagesOfOneDtype(b);
  const Shape& shape = b.output().shape;
  BatchNormTrainArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = op.eps;
  arguments.relu = op.relu;
  const BufferId x = readRows(b, 0);
  const VectorAt gamma = op.affine ? b.readVector(1) : nothing, beta = op.affine ? b.readVector(2) : nothing;
  const BufferId residual = op.residual >= 0 ? readRows(b, static_cast<size_t>(op.residual)) : none;
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
  const ops::RunningStatistics op(b);
  RunningStatisticsArguments arguments;
  arguments.channels = b.output().size();
  arguments.count = op.count;
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
  const ops::BatchNormGradient op(b);
  expectImagesOfOneDtype(b);
  const Shape& shape = b.input(0).shape;
  BatchNormGradientArguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = op.eps;
  arguments.training = op.training;
  const BufferId x = readRows(b, 0);
  const BufferId dy = readRows(b, 3);
  const VectorAt mean = b.readVector(1), variance = b.readVector(2);
  const VectorAt gamma = op.affine ? b.readVector(4) : nothing;
  const BufferId activated = op.activated >= 0 ? readRows(b, static_cast<size_t>(op.activated)) : none;
  const BufferId workspace = b.scratch(batchNormWorkspace(arguments.rows, arguments.channels));
  const RowsOut dx = writeRows(b, 0);
  const Form vector{Layout::plain, DType::float32, 0};
  const BufferId dgamma = b.write(1, vector);
  const BufferId dbeta = b.write(2, vector);
  const RowsOut masked = op.residual ? writeRows(b, 3) : RowsOut{none, none};
  b.touch(x);
  // for the sums, then for dx; what the ReLU lets through is kept where the residual's gradient is wanted, and read again
  b.passes(x, 2);
  if (op.residual) {
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
  if (op.residual) finishRows(b, masked, 3);
}

// weight [O, ...], bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]? -> the weight and bias of a convolution that
// does what convolution and batch norm did
void foldBatchNorm(Builder& b) {
  const ops::FoldBatchNorm op(b);
  b.expectOneDtype();
  const Shape& weight = b.input(0).shape;
  FoldBatchNormArguments arguments;
  arguments.dtype = b.outputType();
  arguments.outputs = weight[0];
  arguments.fan = weight[0] == 0 ? 0 : sizeOf(weight) / weight[0];
  arguments.eps = op.eps;
  size_t next = 1;
  const BufferId w = b.read(0);
  const VectorAt bias = op.bias ? b.readVector(next++) : nothing;
  const VectorAt mean = b.readVector(next++);
  const VectorAt variance = b.readVector(next++);
  const VectorAt gamma = op.affine ? b.readVector(next++) : nothing;
  const VectorAt beta = op.affine ? b.readVector(next++) : nothing;
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
