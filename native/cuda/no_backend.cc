#include "../runtime/errors.h"
#include "backend.h"

namespace seresnet::cuda {

std::unique_ptr<Backend> makeBackend(const OpenOptions&) {
  throw Error("cuda", "this build has no CUDA executor");
}

}  // namespace seresnet::cuda
