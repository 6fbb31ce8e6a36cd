#pragma once

#include <vector>

#include "runtime/device.h"

namespace seresnet::cpu {

// The machine's CPU as one device. Never throws for a part that is missing.
std::vector<DeviceInfo> devices();

}  // namespace seresnet::cpu
