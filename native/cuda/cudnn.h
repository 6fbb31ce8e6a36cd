#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../runtime/device.h"

namespace seresnet::cuda {

struct CudnnReport {
  std::string path;     // the file that was loaded
  std::string version;  // "9.24.0"
  std::vector<std::string> tried;  // every place that did not serve, and why
  std::optional<Problem> problem;
};

// Loads cuDNN 9 from the first of `candidates` (paths, or names for the loader to look up) that has it.
CudnnReport findCudnn(const std::vector<std::string>& candidates);

// Version of the cuDNN headers this build has, or nothing where they were not there.
std::optional<std::string> cudnnHeaders();

}  // namespace seresnet::cuda
