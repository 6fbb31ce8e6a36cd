#include "cuda/kernels/batch_norm_act.h"

#include <algorithm>

#include "bind.h"
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
  emitLaunch(b, "to rows", launchToChannelsLast, arguments,
             std::tuple{bind<&ToChannelsLastArguments::x>(x), bind<&ToChannelsLastArguments::y>(y)});
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
  emitLaunch(b, "from rows", launchToChannelsFirst, arguments,
             std::tuple{bind<&ToChannelsFirstArguments::x>(out.rows), bind<&ToChannelsFirstArguments::y>(out.output)});
}

// The rows of an input, or none for -1.
BufferId readRowsIf(Builder& b, int input) { return input >= 0 ? readRows(b, static_cast<size_t>(input)) : none; }

VectorAt readVectorIf(Builder& b, bool there, size_t input) { return there ? b.readVector(input) : noVector; }

constexpr Form plainFloat{Layout::plain, DType::float32, 0};

// What the arguments of all kernels on images have in common.
template <typename Arguments>
Arguments onRows(const Builder& b, const Shape& shape, double eps) {
  Arguments arguments;
  arguments.dtype = b.outputType();
  arguments.channels = shape[1];
  arguments.rows = shape[1] == 0 ? 0 : sizeOf(shape) / shape[1];
  arguments.eps = eps;
  return arguments;
}

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
  using Arguments = BatchNormArguments;
  const ops::BatchNorm op(b);
  expectImagesOfOneDtype(b);
  auto arguments = onRows<Arguments>(b, b.output().shape, op.eps);
  arguments.relu = op.relu;
  const std::tuple inputs{bind<&Arguments::x>(readRows(b, 0)),
                          bind<&Arguments::residual>(readRowsIf(b, op.residual)),
                          bind<&Arguments::mean>(b.readVector(1)),
                          bind<&Arguments::variance>(b.readVector(2)),
                          bind<&Arguments::gamma>(readVectorIf(b, op.affine, 3)),
                          bind<&Arguments::beta>(readVectorIf(b, op.affine, 4))};
  const RowsOut y = writeRows(b, 0);
  emitLaunch(b, "", launchBatchNorm, arguments, std::tuple_cat(inputs, std::tuple{bind<&Arguments::y>(y.rows)}));
  finishRows(b, y, 0);
}

// x, gamma [C]?, beta [C]?, residual? -> y (+ residual) (+ ReLU), the batch's mean [C] and biased variance [C]
void batchNormTrain(Builder& b) {
  using Arguments = BatchNormTrainArguments;
  const ops::BatchNormTrain op(b);
  expectImagesOfOneDtype(b);
  auto arguments = onRows<Arguments>(b, b.output().shape, op.eps);
  arguments.relu = op.relu;
  const BufferId x = readRows(b, 0);
  const std::tuple inputs{bind<&Arguments::x>(x), bind<&Arguments::gamma>(readVectorIf(b, op.affine, 1)),
                          bind<&Arguments::beta>(readVectorIf(b, op.affine, 2)),
                          bind<&Arguments::residual>(readRowsIf(b, op.residual)),
                          bind<&Arguments::workspace>(b.scratch(batchNormWorkspace(arguments.rows, arguments.channels)))};
  const RowsOut y = writeRows(b, 0);
  const std::tuple outputs{bind<&Arguments::y>(y.rows),
                           bind<&Arguments::mean>(b.write(1, plainFloat)),  // the running averages' precision
                           bind<&Arguments::variance>(b.write(2, plainFloat))};
  b.passes(x, 2);  // for the statistics, then to be normalised with them
  emitLaunch(b, "", launchBatchNormTrain, arguments, std::tuple_cat(inputs, outputs));
  finishRows(b, y, 0);
}

// running mean [C] and variance [C], the batch's mean [C] and biased variance [C], momentum -> the new running ones
void runningStatistics(Builder& b) {
  using Arguments = RunningStatisticsArguments;
  const ops::RunningStatistics op(b);
  Arguments arguments;
  arguments.channels = b.output().size();
  arguments.count = op.count;
  emitLaunch(b, "", launchRunningStatistics, arguments,
             std::tuple{bind<&Arguments::mean>(b.readVector(0)), bind<&Arguments::variance>(b.readVector(1)),
                        bind<&Arguments::batchMean>(b.readVector(2)), bind<&Arguments::batchVariance>(b.readVector(3)),
                        bind<&Arguments::momentum>(b.read(4, plainFloat)),
                        bind<&Arguments::newMean>(b.write(0), b.outputType(0)),
                        bind<&Arguments::newVariance>(b.write(1), b.outputType(1))});
}

// x, mean, variance, dy, gamma?, with `relu` what it made of the result -> dx, dgamma, dbeta, with `residual` its gradient:
// what the ReLU lets through
void batchNormGradient(Builder& b) {
  using Arguments = BatchNormGradientArguments;
  const ops::BatchNormGradient op(b);
  expectImagesOfOneDtype(b);
  auto arguments = onRows<Arguments>(b, b.input(0).shape, op.eps);
  arguments.training = op.training;
  const BufferId x = readRows(b, 0);
  const BufferId dy = readRows(b, 3);
  const std::tuple vectors{bind<&Arguments::mean>(b.readVector(1)), bind<&Arguments::variance>(b.readVector(2)),
                           bind<&Arguments::gamma>(readVectorIf(b, op.affine, 4))};
  const BufferId activated = readRowsIf(b, op.activated);
  const BufferId workspace = b.scratch(batchNormWorkspace(arguments.rows, arguments.channels));
  const RowsOut dx = writeRows(b, 0);
  const std::tuple rest{bind<&Arguments::workspace>(workspace), bind<&Arguments::dgamma>(b.write(1, plainFloat)),
                        bind<&Arguments::dbeta>(b.write(2, plainFloat))};
  const RowsOut masked = op.residual ? writeRows(b, 3) : RowsOut{none, none};
  // for the sums, then for dx; what the ReLU lets through is kept where the residual's gradient is wanted, and read again
  b.passes(x, 2);
  if (op.residual) {
    b.passes(masked.rows, 2);
  } else {
    b.passes(dy, 2);
    b.passes(activated, 2);
  }
  const std::tuple rows{bind<&Arguments::x>(x), bind<&Arguments::dy>(dy), bind<&Arguments::activated>(activated),
                        bind<&Arguments::dx>(dx.rows), bind<&Arguments::residual>(masked.rows)};
  emitLaunch(b, "", launchBatchNormGradient, arguments, std::tuple_cat(rows, vectors, rest));
  finishRows(b, dx, 0);
  if (op.residual) finishRows(b, masked, 3);
}

// weight [O, ...], bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]? -> the weight and bias of a convolution that
// does what convolution and batch norm did
void foldBatchNorm(Builder& b) {
  using Arguments = FoldBatchNormArguments;
  const ops::FoldBatchNorm op(b);
  b.expectOneDtype();
  const Shape& weight = b.input(0).shape;
  Arguments arguments;
  arguments.dtype = b.outputType();
  arguments.outputs = weight[0];
  arguments.fan = weight[0] == 0 ? 0 : sizeOf(weight) / weight[0];
  arguments.eps = op.eps;
  const size_t first = size_t{1} + op.bias;  // of mean, variance, gamma, beta
  emitLaunch(b, "", launchFoldBatchNorm, arguments,
             std::tuple{bind<&Arguments::weight>(b.read(0)), bind<&Arguments::bias>(readVectorIf(b, op.bias, 1)),
                        bind<&Arguments::mean>(b.readVector(first)), bind<&Arguments::variance>(b.readVector(first + 1)),
                        bind<&Arguments::gamma>(readVectorIf(b, op.affine, first + 2)),
                        bind<&Arguments::beta>(readVectorIf(b, op.affine, first + 3)),
                        bind<&Arguments::newWeight>(b.write(0)),
                        bind<&Arguments::newBias>(b.write(1), arguments.dtype)});
}

}  // namespace seresnet::cuda
