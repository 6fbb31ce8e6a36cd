#pragma once

#include <utility>

#include "cuda/kernels/squeeze_excite.h"
#include "cuda/program/builder.h"

namespace seresnet::cuda {

// The two fully connected layers of a squeeze-and-excitation, on the device.
struct Excitation {
  int64_t hidden;
  BufferId w1, w2;
  std::pair<BufferId, DType> b1, b2;
};

// W1, b1, W2, b2: the current step's inputs from `at` on.
Excitation readExcitation(Builder& b, size_t at, int64_t hidden);

// Adds the kernel for y = x * gate (+ residual) (+ ReLU) on channels-last buffers.
void emitSqueezeExcite(Builder& b, const Images& images, bool relu, BufferId x, const Excitation& excitation,
                       BufferId residual, BufferId y);

}  // namespace seresnet::cuda
