#include "runtime.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <sstream>

#include "runtime/errors.h"

namespace seresnet::cuda {

namespace {

// CMake's list: "90" is machine code and PTX, "90-real" and "90-virtual" one of them.
std::vector<Arch> parseArchs(const std::string& list) {
  std::vector<Arch> archs;
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    const int capability = std::atoi(word.c_str());
    const bool ptxOnly = word.ends_with("-virtual");
    if (!ptxOnly) archs.push_back({capability, false});
    if (!word.ends_with("-real")) archs.push_back({capability, true});
  }
  return archs;
}

}  // namespace

std::optional<RuntimeInfo> runtime() {
  RuntimeInfo info;
  const cudaError_t status = cudaRuntimeGetVersion(&info.version);  // needs neither a driver nor a device
  if (status != cudaSuccess) throw Error("cudaRuntimeGetVersion", cudaGetErrorString(status));
  info.archs = parseArchs(SERESNET_CUDA_ARCHS);
  return info;
}

std::vector<std::string> archNames(const RuntimeInfo& info) {
  std::vector<std::string> names;
  for (const Arch& arch : info.archs) names.push_back((arch.ptx ? "compute_" : "sm_") + std::to_string(arch.capability));
  return names;
}

}  // namespace seresnet::cuda
