#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/program/builder.h"
#include "ops/conv2d.h"

namespace seresnet::cuda {

struct ConvolutionBuffers {
  BufferId x = none, w = none, y = none, gate = none, bias = none, residual = none;
};

// The convolution x, w -> y in the dtype of the current step.
Convolution describe(Builder& b, const Shape& x, const Shape& w, const Shape& y, const ops::ConvolutionGeometry& g);

// Adds the kernels of a convolution on buffers; throws Error where the engine has none. `channels` are x's without the zeros
// that were put behind them, 0 for all.
void emitConvolution(Builder& b, const Convolution& convolution, const ConvolutionBuffers& buffers, int64_t channels = 0);

}  // namespace seresnet::cuda
