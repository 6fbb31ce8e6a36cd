#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Gradients of y = x * gate (+ residual) (+ ReLU), squeeze-and-excitation's last product, in one pass over the images. With
// g = dy where `activated`, the y of a ReLU, is not 0, and everywhere without it: dx = g * gate,
// dgate [images, channels] = sum over an image of g * x; `residual` gets g.
struct GateGradientArguments {
  const void* x = nullptr;
  const void* gate = nullptr;  // [images, channels]
  const void* dy = nullptr;
  const void* activated = nullptr;  // optional
  void* dx = nullptr;
  void* dgate = nullptr;
  void* residual = nullptr;  // optional: the residual's gradient
  DType dtype = DType::float32;
  Images images;
};
void launchGateGradient(Stream stream, const GateGradientArguments& arguments);

}  // namespace seresnet::cuda
