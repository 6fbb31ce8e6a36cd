#pragma once

#include <cstdint>

namespace seresnet::cpu {

// Inner loops that several ops share, each compiled for every instruction set (parallel.h).

float dot(const float* a, const float* b, int64_t count);

// sums[c] += the rows of a matrix [rows, stride], columns [0, columns)
void addRows(const float* matrix, int64_t rows, int64_t stride, int64_t columns, float* sums);

double sumOf(const float* x, int64_t count);

}  // namespace seresnet::cpu
