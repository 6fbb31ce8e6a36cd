#include "errors.h"

#include <utility>

namespace seresnet {

Error::Error(std::string call, const std::string& why, Kind kind)
    : std::runtime_error(call + ": " + why), call_(std::move(call)), why_(why), kind_(kind) {}

}  // namespace seresnet
