#include "vector.h"

#include "parallel.h"

namespace seresnet::cpu {

SERESNET_CLONES float dot(const float* a, const float* b, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

SERESNET_CLONES float dot(const float* a, const Bfloat16* b, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

SERESNET_CLONES void addRows(const float* matrix, int64_t rows, int64_t stride, int64_t columns, float* sums) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < columns; ++c) sums[c] += matrix[row * stride + c];
}

SERESNET_CLONES void addRows(const Bfloat16* matrix, int64_t rows, int64_t stride, int64_t columns, float* sums) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < columns; ++c) sums[c] += matrix[row * stride + c];
}

SERESNET_CLONES void round(const float* from, Bfloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = Bfloat16(from[i]);
}

SERESNET_CLONES void widen(const Bfloat16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

SERESNET_CLONES void roundToBfloat16(float* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) data[i] = Bfloat16(data[i]);
}

SERESNET_CLONES void relu(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] < 0 ? 0 : x[i];
}

void reluInPlace(float* data, int64_t count) {
  parallel(count, 16384, [&](int64_t first, int64_t last) { relu(data + first, data + first, last - first); });
}

void reluInPlace(Bfloat16* data, int64_t count) {
  parallel(count, 16384, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      if (data[i] < 0) data[i] = Bfloat16(0);
  });
}

SERESNET_CLONES double sumOf(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

}  // namespace seresnet::cpu
