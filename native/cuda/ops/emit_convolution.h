#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/program/builder.h"

namespace seresnet::cuda {

struct ConvolutionBuffers {
  BufferId x = none, w = none, y = none, gate = none, bias = none, residual = none;
};

// The convolution x, w -> y with the attributes of the current step, checked.
Convolution geometry(Builder& b, const Shape& x, const Shape& w, const Shape& y);

// Adds the kernels of a convolution on buffers; throws Error where the engine has none. `channels` are x's without the zeros
// that were put behind them, 0 for all.
void emitConvolution(Builder& b, const Convolution& convolution, const ConvolutionBuffers& buffers, int64_t channels = 0);

}  // namespace seresnet::cuda
