#include "onednn.h"

namespace seresnet::cpu {

std::optional<OnednnInfo> onednn() { return std::nullopt; }

}  // namespace seresnet::cpu
