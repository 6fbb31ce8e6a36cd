#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Squeeze-and-excitation (Hu et al. 2018): y = x * sigmoid(W2 relu(W1 mean(x) + b1) + b2) (+ residual) (+ ReLU).
// W1 [hidden, channels], W2 [channels, hidden] of the images' dtype. y may be x or the residual.
// Where a thread-block cluster can hold an image in its shared memory (sm_90 on), x is read once; elsewhere pooling, gate
// and scaling are three kernels.
struct SqueezeExciteArguments {
  const void* x = nullptr;
  const void* residual = nullptr;  // optional
  void* y = nullptr;
  DType dtype = DType::float32;
  Images images;
  int64_t hidden = 0;
  const void* w1 = nullptr;
  const void* w2 = nullptr;
  Vector b1, b2;
  bool relu = false;
  void* workspace = nullptr;  // of squeezeExciteWorkspace bytes
};
void launchSqueezeExcite(Stream stream, const SqueezeExciteArguments& arguments);
size_t squeezeExciteWorkspace(const Images& images, DType dtype);

// The gate alone, for linear squeeze: gate [images, channels] = sigmoid(W2 relu(W1 pooled + b1) + b2), with pooled
// [images, depth], W1 [hidden, depth] and W2 [channels, hidden]. depth is the channels of whatever was pooled: with the
// last convolution's weight folded into W1 that is its input.
struct ExciteArguments {
  const void* pooled = nullptr;
  void* gate = nullptr;
  DType dtype = DType::float32;
  int64_t images = 0, depth = 0, hidden = 0, channels = 0;
  const void* w1 = nullptr;
  const void* w2 = nullptr;
  Vector b1, b2;
};
void launchExcite(Stream stream, const ExciteArguments& arguments);

}  // namespace seresnet::cuda
