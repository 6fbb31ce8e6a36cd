#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// y = (x - mean) * gamma / sqrt(variance + eps) + beta (+ residual) (+ ReLU); x, residual and y [rows, channels].
// Without gamma and beta they are 1 and 0. y may be x or the residual.
struct BatchNormArguments {
  const void* x = nullptr;
  const void* residual = nullptr;  // optional
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t rows = 0, channels = 0;
  Vector mean, variance, gamma, beta;
  double eps = 1e-5;
  bool relu = false;
};
void launchBatchNorm(Stream stream, const BatchNormArguments& arguments);

// The same with the batch's own statistics: mean and biased variance of each channel come out too. y must not be x.
struct BatchNormTrainArguments {
  const void* x = nullptr;
  const void* residual = nullptr;  // optional
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t rows = 0, channels = 0;
  Vector gamma, beta;         // optional
  VectorOut mean, variance;
  double eps = 1e-5;
  bool relu = false;
  void* workspace = nullptr;  // of batchNormWorkspace bytes
};
void launchBatchNormTrain(Stream stream, const BatchNormTrainArguments& arguments);

// running = (1 - momentum) * running + momentum * batch, with the unbiased variance of `count` values.
struct RunningStatisticsArguments {
  Vector mean, variance, batchMean, batchVariance;
  VectorOut newMean, newVariance;  // may be the old ones
  int64_t channels = 0;
  const float* momentum = nullptr;  // one element
  double count = 0;
};
void launchRunningStatistics(Stream stream, const RunningStatisticsArguments& arguments);

// Bytes that launchBatchNormTrain and launchBatchNormGradient need.
size_t batchNormWorkspace(int64_t rows, int64_t channels);

// Gradients of both. With `training` the statistics came from x itself and pass gradients on. With `activated`, the y of a
// ReLU, dy counts only where that is not 0; `residual` then gets that masked dy. dgamma and dbeta [channels].
struct BatchNormGradientArguments {
  const void* x = nullptr;
  const void* dy = nullptr;
  const void* activated = nullptr;  // optional
  void* dx = nullptr;
  void* residual = nullptr;  // optional: the residual's gradient
  DType dtype = DType::float32;
  int64_t rows = 0, channels = 0;
  Vector mean, variance, gamma;
  VectorOut dgamma, dbeta;
  double eps = 1e-5;
  bool training = true;
  void* workspace = nullptr;  // of batchNormWorkspace bytes
};
void launchBatchNormGradient(Stream stream, const BatchNormGradientArguments& arguments);

// The weight [outputs, fan] and bias [outputs] of a convolution that does what a convolution and its batch norm did.
struct FoldBatchNormArguments {
  const void* weight = nullptr;
  void* newWeight = nullptr;
  DType dtype = DType::float32;
  int64_t outputs = 0, fan = 0;
  Vector bias, mean, variance, gamma, beta;  // bias, gamma and beta optional
  VectorOut newBias;
  double eps = 1e-5;
};
void launchFoldBatchNorm(Stream stream, const FoldBatchNormArguments& arguments);

}  // namespace seresnet::cuda
