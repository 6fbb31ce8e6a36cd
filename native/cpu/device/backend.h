#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace seresnet::cpu {

// The oneDNN executor; null in a build without oneDNN (stubs/no_onednn.cc).
std::unique_ptr<Backend> makeBackend();

// The ops it has kernels for; none in such a build.
std::vector<std::string> opNames();

}  // namespace seresnet::cpu
