#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Sum or mean. `kept` walks over the outputs (dense in its order) and `reduced` over what is summed for each: strides[0] of
// both are x's. All dtypes; integers wrap around, and the mean is for floats. No reduced elements give 0 (mean: NaN).
struct ReduceArguments {
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  Walk kept, reduced;
  bool mean = false;
};
void launchReduce(Stream stream, const ReduceArguments& arguments);

}  // namespace seresnet::cuda
