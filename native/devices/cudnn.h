#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/library.h"

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

// The part of cuDNN that has the graph API, in `folder` or where the loader looks. libcudnn itself only passes calls on to
// its parts, and aborts the process when it cannot load them (half an installation, no libz): so this one is opened first
// and asked in its stead. Throws Error("dlopen", …).
Library openGraph(const std::filesystem::path& folder);

// Version of the cuDNN headers this build has, or nothing where they were not there.
std::optional<std::string> cudnnHeaders();

}  // namespace seresnet::cuda
