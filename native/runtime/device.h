#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace seresnet {

// Why a device cannot be used, and the command or the act that mends it. Commands that are others in a checkout than in an
// installed package go by their names in lib/devices/remedies.ts: {build}, {cpu}, {cuda}, {cudnn}.
struct Problem {
  std::string reason;
  std::string fix;
  std::string code = "ERR_DEVICE";  // the reason for programs
};

using Detail = std::variant<std::string, double, bool, std::vector<std::string>>;

struct DeviceInfo {
  std::string name;  // "cpu" or "cuda"
  int index = 0;
  std::string description;
  std::vector<Problem> problems;  // most fundamental first; empty means usable
  std::vector<std::pair<std::string, Detail>> details;
};

}  // namespace seresnet
