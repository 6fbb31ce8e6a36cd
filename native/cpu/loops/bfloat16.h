#pragma once

#include <cstdint>
#include <cstring>

namespace seresnet::cpu {

// The upper half of a float32: 8 bits of exponent, 7 of mantissa.
struct Bfloat16 {
  uint16_t bits = 0;

  Bfloat16() = default;
  // Rounds to the nearest, ties to even; NaN stays NaN.
  explicit Bfloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const uint32_t rounded = word + 0x7fff + ((word >> 16) & 1);
    bits = static_cast<uint16_t>((value != value ? word | 0x400000 : rounded) >> 16);
  }

  operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

}  // namespace seresnet::cpu
