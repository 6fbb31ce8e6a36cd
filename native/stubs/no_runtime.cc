#include "cuda/gpu/runtime.h"

namespace seresnet::cuda {

std::optional<RuntimeInfo> runtime() { return std::nullopt; }

std::vector<std::string> archNames(const RuntimeInfo&) { return {}; }

}  // namespace seresnet::cuda
