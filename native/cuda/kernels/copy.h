#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Moves walk.size() elements of `width` bytes (1, 2, 4 or 8) from x, stepping walk.strides[0], to y, stepping
// walk.strides[1]: slices, transposes, concatenation (one call a part), and, into cleared memory, padding and the way back
// of slices. Origins are added to the pointers by the caller. x and y must not overlap.
struct CopyArguments {
  const void* x = nullptr;
  void* y = nullptr;
  int width = 4;
  Walk walk;
};
void launchCopy(Stream stream, const CopyArguments& arguments);

}  // namespace seresnet::cuda
