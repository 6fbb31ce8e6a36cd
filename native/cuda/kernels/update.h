#pragma once

#include "arguments.h"

namespace seresnet::cuda {

// Optimizer steps over many tensors at once. The tensors' addresses travel with the launch, so that they may be recorded;
// the settings are read from device memory, so that schedules change without a new plan or capture. Parameters and state are float32; gradients of any float dtype.
struct UpdateTensor {
  const float* parameter;
  const void* gradient;
  const float* state[2];  // SGD: velocity; AdamW: both moments
  float* newParameter;    // may be `parameter`
  float* newState[2];     // may be `state`
  void* scaled;           // of the gradients' dtype; may be `gradient`
  int64_t count;
};
struct UpdateArguments {
  const UpdateTensor* tensors = nullptr;  // in host memory; read before the launch returns
  int64_t tensorCount = 0;
  int64_t longest = 0;  // the largest `count`
  DType gradientType = DType::float32;
  const float* skip = nullptr;  // optional, one element: unless it is 0, parameters and state stay as they are
};

// PyTorch's SGD: velocity = momentum * velocity + g with g = gradient + weightDecay * parameter.
struct SgdArguments {
  UpdateArguments update;
  const float* lr = nullptr;
  const float* momentum = nullptr;
  const float* weightDecay = nullptr;
  bool nesterov = false;
};
void launchSgd(Stream stream, const SgdArguments& arguments);

// AdamW (Loshchilov & Hutter 2019, algorithm 2); `step` counts from 1.
struct AdamwArguments {
  UpdateArguments update;
  const float* lr = nullptr;
  const float* beta1 = nullptr;
  const float* beta2 = nullptr;
  const float* eps = nullptr;
  const float* weightDecay = nullptr;
  const float* step = nullptr;
};
void launchAdamw(Stream stream, const AdamwArguments& arguments);

// found [1] = 1 if an element of the gradients is not finite, else 0.
struct FoundInfArguments {
  UpdateArguments update;
  float* found = nullptr;
};
void launchFoundInf(Stream stream, const FoundInfArguments& arguments);

// norm [1]: the Euclidean norm of all gradients.
struct GlobalNormArguments {
  UpdateArguments update;
  float* norm = nullptr;
  void* workspace = nullptr;  // of globalNormWorkspace bytes
};
void launchGlobalNorm(Stream stream, const GlobalNormArguments& arguments);
size_t globalNormWorkspace(int64_t tensorCount, int64_t longest);

// scaled = gradient * factor [1]
struct ScaleArguments {
  UpdateArguments update;
  const float* factor = nullptr;
};
void launchScale(Stream stream, const ScaleArguments& arguments);

// newParameter = parameter + weight [1] * (gradient - parameter): averages of weights, which stand in place of gradients.
struct LerpArguments {
  UpdateArguments update;
  const float* weight = nullptr;
};
void launchLerp(Stream stream, const LerpArguments& arguments);

}  // namespace seresnet::cuda
