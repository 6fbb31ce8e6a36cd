#pragma once

#include "cuda/program/builder.h"
#include "ops/table.h"

namespace seresnet::cuda {

SERESNET_OPS(SERESNET_OP_DECLARATION)

}  // namespace seresnet::cuda
