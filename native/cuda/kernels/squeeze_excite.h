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

// dx, and the gradient of what the sigmoid got, in one reduction pass over the image. With g = dy where `activated` (the
// block's y, after ReLU) is above 0, and everywhere without it: dlogit [images, channels] = gate (1 - gate) sum(g * x) and
// dx = g * gate; `residual` gets g. The mean's share of dx, which needs dlogit through the fully connected layers, is
// added by launchSqueezeExciteSpread.
struct SqueezeExciteGradientArguments {
  const void* x = nullptr;
  const void* dy = nullptr;
  const void* activated = nullptr;  // optional
  const void* gate = nullptr;       // [images, channels]
  void* dx = nullptr;
  void* residual = nullptr;  // optional: the residual's gradient
  void* dlogit = nullptr;    // [images, channels]
  DType dtype = DType::float32;
  Images images;
};
void launchSqueezeExciteGradient(Stream stream, const SqueezeExciteGradientArguments& arguments);

// dx += dpooled[image, channel] / plane
struct SqueezeExciteSpreadArguments {
  const void* dpooled = nullptr;  // [images, channels]
  void* dx = nullptr;
  DType dtype = DType::float32;
  Images images;
};
void launchSqueezeExciteSpread(Stream stream, const SqueezeExciteSpreadArguments& arguments);

}  // namespace seresnet::cuda
