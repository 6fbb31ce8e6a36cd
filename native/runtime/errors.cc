#include "errors.h"

#include <utility>

namespace seresnet {

Error::Error(std::string call, const std::string& why)
    : std::runtime_error(call + ": " + why), call_(std::move(call)), why_(why) {}

}  // namespace seresnet
