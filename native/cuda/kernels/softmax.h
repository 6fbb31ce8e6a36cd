#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Softmax, or its logarithm, along the middle dim of x [outer, extent, inner]. y may be x.
struct SoftmaxArguments {
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t outer = 0, extent = 0, inner = 1;
  bool logarithm = false;
};
void launchSoftmax(Stream stream, const SoftmaxArguments& arguments);

}  // namespace seresnet::cuda
