#pragma once

#include <cmath>
#include <cstdint>

namespace seresnet::cpu {

// A number as an integer of 64 bits, which cut to fewer bits is what JavaScript's typed arrays store: the fraction is
// dropped, what does not fit wraps around, NaN and infinities become 0.
inline uint64_t wrapped(double value) {
  if (!std::isfinite(value)) return 0;
  const double rest = std::fmod(std::trunc(value), 18446744073709551616.0);
  return rest < 0 ? uint64_t{0} - static_cast<uint64_t>(-rest) : static_cast<uint64_t>(rest);
}

}  // namespace seresnet::cpu
