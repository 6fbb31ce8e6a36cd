#include "cuda/device/backend.h"
#include "runtime/errors.h"

namespace seresnet::cuda {

std::unique_ptr<Backend> makeBackend(const OpenOptions&) {
  throw Error("cuda", "this build has no CUDA executor");
}

std::vector<std::string> opNames() { return {}; }

}  // namespace seresnet::cuda
