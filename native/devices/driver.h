#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device.h"

namespace seresnet::cuda {

struct Gpu {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  std::size_t memory = 0;  // bytes
};

struct DriverReport {
  std::optional<int> version;  // the newest CUDA the driver speaks, as 1000 * major + 10 * minor
  std::vector<Gpu> gpus;
  std::optional<Problem> problem;
};

// Asks libcuda.so.1, opened at run time. Makes no CUDA context.
DriverReport probeDriver();

}  // namespace seresnet::cuda
