#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../runtime/device.h"

namespace seresnet::cuda {

struct CudnnReport {
  std::string path;                // of libcudnn
  std::string version;             // "9.24.0"; "" where only the file was looked for
  std::vector<std::string> tried;  // every place that did not serve, and why
  std::optional<Problem> problem;
};

// Finds cuDNN 9 at the first of `candidates` (paths, or names for the loader to look up) that has it. Without `load` the
// file is enough; with it, the library must work too, which takes some 25 ms and 50 MB.
CudnnReport findCudnn(const std::vector<std::string>& candidates, bool load);

// Version of the cuDNN headers this build has, or nothing where they were not there.
std::optional<std::string> cudnnHeaders();

}  // namespace seresnet::cuda
