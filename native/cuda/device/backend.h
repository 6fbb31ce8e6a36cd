#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace seresnet::cuda {

struct OpenOptions {
  int device = 0;
  size_t memoryLimit = 0;     // bytes of device memory; 0 means what the device has
  std::string cudnn;          // the file of libcudnn.so.9
  std::string cache;          // a folder for convolution plans; "" keeps none on disk
  bool deterministic = true;  // the same bits in every run
  bool autotune = false;      // times every new convolution's candidates
};

// One NVIDIA GPU. Throws Error when there is no such device or it lacks something.
std::unique_ptr<Backend> makeBackend(const OpenOptions& options);

// The ops it has kernels for; none in a build without CUDA (stubs/no_backend.cc).
std::vector<std::string> opNames();

}  // namespace seresnet::cuda
