#pragma once

#include "cpu/program/builder.h"

namespace seresnet::cpu {

// The gate of `squeeze_excite(conv(x))` from x alone, on channels-last images: for a convolution of stride 1 without
// groups, the mean of its output is linear in the sums of x under each tap of the kernel. fc1 follows that mean with
// nothing between, so fc1 and the convolution's weights fold into one matrix [R, taps * C] at load.
struct LinearSqueeze {
  int64_t images, height, width, channels, outHeight, outWidth, outputs, hidden;
  std::vector<int64_t> kernel, padding, dilation;

  int64_t taps() const { return kernel[0] * kernel[1]; }
  // Floats of working memory a run needs, the gates [N, outputs] first, and what may be read behind them.
  size_t workSize() const;

  // W1 [R, O] times the weight [O, C, kh, kw], over the output's pixels; and W1 times the bias (or null), plus b1.
  std::shared_ptr<HostMemory> foldedWeights(const float* weight, const float* w1) const;
  std::shared_ptr<HostMemory> foldedBias(const float* bias, const float* w1, const float* b1) const;

  // Fills `work` with the gates.
  void run(const float* x, const float* weights, const float* bias, const float* w2, const float* b2, float* work) const;
};

}  // namespace seresnet::cpu
