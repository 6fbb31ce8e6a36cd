#pragma once

#include <napi.h>

#include <vector>

#include "cuda/convolution/convolution.h"

namespace seresnet::node {

// Convolutions as JavaScript describes them: { input: [N, C, H, W], weight: [O, C / groups, kh, kw], stride, padding, dtype,
// pass?, alignment?, gate?, bias?, residual?, relu? }, alignment being the bytes that the addresses of x, w and y are multiples
// of. Throws Error where that is not what is given.
std::vector<cuda::Convolution> toConvolutions(const Napi::Value& value);

}  // namespace seresnet::node
