#pragma once

#include <string>
#include <vector>

#include "runtime/device.h"

namespace seresnet::cuda {

// 13000 → "13.0".
std::string versionText(int version);

// Every NVIDIA GPU, or one entry that says why there is none. Never throws for a part that is missing. `cudnn` lists
// the places where cuDNN may be, in order.
std::vector<DeviceInfo> devices(const std::vector<std::string>& cudnn);

}  // namespace seresnet::cuda
