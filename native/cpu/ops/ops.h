#pragma once

#include "cpu/program/builder.h"
#include "ops/table.h"

namespace seresnet::cpu {

SERESNET_OPS(SERESNET_OP_DECLARATION)

}  // namespace seresnet::cpu
