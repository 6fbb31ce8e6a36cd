#pragma once

#include <cstdint>

#include "bfloat16.h"

namespace seresnet::cpu {

// Inner loops that several ops share, each compiled for every instruction set (parallel.h).

float dot(const float* a, const float* b, int64_t count);
float dot(const float* a, const Bfloat16* b, int64_t count);

// sums[c] += the rows of a matrix [rows, stride], columns [0, columns)
void addRows(const float* matrix, int64_t rows, int64_t stride, int64_t columns, float* sums);

void addRows(const Bfloat16* matrix, int64_t rows, int64_t stride, int64_t columns, float* sums);

// to bfloat16 and back
void round(const float* from, Bfloat16* to, int64_t count);
void widen(const Bfloat16* from, float* to, int64_t count);
// in place
void roundToBfloat16(float* data, int64_t count);

// NaN stays NaN.
void relu(const float* x, float* y, int64_t count);
// The same on all threads of the team.
void reluInPlace(float* data, int64_t count);
void reluInPlace(Bfloat16* data, int64_t count);

double sumOf(const float* x, int64_t count);

}  // namespace seresnet::cpu
