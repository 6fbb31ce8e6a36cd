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
  int64_t count;
};
struct UpdateArguments {
  const UpdateTensor* tensors = nullptr;  // in host memory; read before the launch returns
  int64_t tensorCount = 0;
  int64_t longest = 0;  // the largest `count`
  DType gradientType = DType::float32;
  const float* gradientFactor = nullptr;  // optional, one element: what every gradient is multiplied by (clipping, loss scale)
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

// factor [1] = min(1, limit / (norm + 1e-6)) with the Euclidean norm [1] over all gradients (torch's clip_grad_norm_).
struct ClipArguments {
  UpdateArguments update;
  const float* limit = nullptr;
  float* norm = nullptr;    // one element
  float* factor = nullptr;  // one element
  void* workspace = nullptr;  // of clipWorkspace bytes
};
void launchClip(Stream stream, const ClipArguments& arguments);
size_t clipWorkspace(int64_t tensorCount, int64_t longest);

}  // namespace seresnet::cuda
