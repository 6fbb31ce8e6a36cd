#pragma once

#include "arguments.h"

namespace seresnet::cuda {

enum class Reduction { none, sum, mean };

// Cross-entropy of logits [batch, classes] and class indices [batch]; label smoothing s moves the share s of each target
// evenly to all classes. loss is [batch] for Reduction::none, else one element. A target outside [0, classes) makes its
// loss NaN, and `invalid`, where given, becomes the largest of itself and batch - position: set it to 0 before, and
// batch - invalid is the first bad position.
struct CrossEntropyArguments {
  const void* logits = nullptr;
  DType dtype = DType::float32;
  const void* targets = nullptr;
  DType targetType = DType::int32;  // int32 or int64
  void* loss = nullptr;
  DType lossType = DType::float32;
  int64_t batch = 0, classes = 0;
  double labelSmoothing = 0;
  Reduction reduction = Reduction::mean;
  int32_t* invalid = nullptr;  // optional
  void* workspace = nullptr;   // batch float32, not for Reduction::none
};
void launchCrossEntropy(Stream stream, const CrossEntropyArguments& arguments);

// dlogits = dloss * (softmax(logits) - smoothed target), over batch for the mean.
struct CrossEntropyGradientArguments {
  const void* logits = nullptr;
  void* dlogits = nullptr;
  DType dtype = DType::float32;
  const void* targets = nullptr;
  DType targetType = DType::int32;
  Vector dloss;  // [batch] for Reduction::none, else one element
  int64_t batch = 0, classes = 0;
  double labelSmoothing = 0;
  Reduction reduction = Reduction::mean;
};
void launchCrossEntropyGradient(Stream stream, const CrossEntropyGradientArguments& arguments);

}  // namespace seresnet::cuda
