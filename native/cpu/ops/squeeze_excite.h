#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"

namespace seresnet::cpu {

// What squeeze-and-excitation is made of, on channels-last images.

// One fully connected layer for all images, each output finished by `activate`.
template <typename Activate>
void connect(int64_t images, int64_t outputs, int64_t depth, const float* x, const float* weight, const float* bias,
             float* y, Activate activate) {
  parallel(outputs, std::max<int64_t>(1, 8192 / (depth * images)), [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; ++o)
      for (int64_t n = 0; n < images; ++n)
        y[n * outputs + o] = activate(dot(x + n * depth, weight + o * depth, depth) + bias[o]);
  });
}

inline float reluOf(float v) { return v < 0 ? 0 : v; }
inline float sigmoidOf(float v) { return 1.F / (1.F + std::exp(-v)); }

// y = x * gate (+ residual) (+ ReLU) for one image of `plane` pixels; a null residual means none.
void applyGate(const float* x, const float* gate, const float* residual, bool relu, float* y, int64_t plane,
               int64_t channels);

}  // namespace seresnet::cpu
