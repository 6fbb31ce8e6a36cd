#pragma once

#include <memory>

#include "runtime/backend.h"

namespace seresnet::cpu {

// The oneDNN executor; null in a build without oneDNN (stubs/no_onednn.cc).
std::unique_ptr<Backend> makeBackend();

}  // namespace seresnet::cpu
