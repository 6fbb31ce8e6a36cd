#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// y = x (* gate[image, channel]) (+ bias[channel]) (+ residual) (+ ReLU): what a convolution's epilogue does, for engines
// that could not fuse it, and the second pass of squeeze-excite. x, residual and y [images, plane, channels], gate
// [images, channels] of the same dtype. y may be x or the residual.
struct BiasActArguments {
  const void* x = nullptr;
  const void* gate = nullptr;      // optional
  const void* residual = nullptr;  // optional
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t images = 0, plane = 0, channels = 0;
  Vector bias;  // optional
  bool relu = false;
};
void launchBiasAct(Stream stream, const BiasActArguments& arguments);

}  // namespace seresnet::cuda
