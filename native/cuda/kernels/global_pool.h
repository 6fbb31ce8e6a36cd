#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// y [batch, channels] = mean (or sum) over the pixels of x.
struct GlobalPoolArguments {
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  Images images;
  bool sum = false;
};
void launchGlobalPool(Stream stream, const GlobalPoolArguments& arguments);

}  // namespace seresnet::cuda
