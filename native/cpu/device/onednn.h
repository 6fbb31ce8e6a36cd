#pragma once

#include <optional>
#include <string>

namespace seresnet::cpu {

struct OnednnInfo {
  std::string compiled;   // version of the headers
  std::string runtime;    // version of the library
  std::string isa;        // the instruction set its kernels are generated for
  std::string threading;  // "OpenMP", "TBB", "sequential", "thread pool"
};

// What this build knows of oneDNN; nothing where it was built without (stubs/no_onednn.cc).
std::optional<OnednnInfo> onednn();

}  // namespace seresnet::cpu
