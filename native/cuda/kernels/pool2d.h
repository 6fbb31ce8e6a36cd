#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Pooling of images x into y. With ceil mode the last windows may hang over the border: y's extents alone say how many
// there are. The border counts as minus infinity (max); the average's divisor is PyTorch's: with countIncludePad the window
// clipped to image and padding, without it to the image. NaN in a window is its maximum.
struct Pool2dArguments {
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  Images input;
  int64_t outHeight = 0, outWidth = 0;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  bool countIncludePad = true;
};
void launchMaxPool2d(Stream stream, const Pool2dArguments& arguments);
void launchAvgPool2d(Stream stream, const Pool2dArguments& arguments);

// dx from dy: each window's gradient goes to its largest input (the first of equals, or the first NaN), or evenly to all.
// Every element of dx is gathered by one thread, so nothing depends on the order of threads. The average needs no x.
struct Pool2dGradientArguments {
  Pool2dArguments forward;  // x (max only) and the sizes; its y is not read
  const void* dy = nullptr;
  void* dx = nullptr;
};
void launchMaxPool2dGradient(Stream stream, const Pool2dGradientArguments& arguments);
void launchAvgPool2dGradient(Stream stream, const Pool2dGradientArguments& arguments);

}  // namespace seresnet::cuda
