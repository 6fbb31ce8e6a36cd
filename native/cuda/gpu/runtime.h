#pragma once

#include <optional>
#include <string>
#include <vector>

namespace seresnet::cuda {

// Machine code ("real") or PTX ("virtual") that this build holds, as compute capability 10 * major + minor.
struct Arch {
  int capability = 0;
  bool ptx = false;
};

struct RuntimeInfo {
  int version = 0;  // 1000 * major + 10 * minor
  std::vector<Arch> archs;
};

// The CUDA runtime linked into this build; nothing where it was built without CUDA (stubs/no_runtime.cc).
std::optional<RuntimeInfo> runtime();

// "sm_90, compute_90" for people.
std::vector<std::string> archNames(const RuntimeInfo& info);

}  // namespace seresnet::cuda
