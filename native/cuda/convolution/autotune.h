#pragma once

#include <optional>

#include "convolution.h"

namespace seresnet::cuda {

// Which of the plans that an engine has for a convolution computes it fastest, on random data and in memory of its own. Only
// those count whose result is right: the first whose samples are those of exact arithmetic is the judge of all the others.
// None where no plan is right; the first where there is no room to try. Throws Error where a plan breaks the device.
std::optional<size_t> fastest(const Convolution& convolution,
                              const std::vector<std::shared_ptr<const ConvolutionPlan>>& plans);

}  // namespace seresnet::cuda
