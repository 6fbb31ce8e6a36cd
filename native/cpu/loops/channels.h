#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/program/layout.h"
#include "parallel.h"

namespace seresnet::cpu {

// A tensor [N, C, ...] seen as [outer, C, inner]; channels-last images have inner 1.
struct View {
  int64_t outer, channels, inner;
};

inline View viewOf(const Shape& shape, Layout layout) {
  const int64_t plane = sizeOf(shape) / std::max<int64_t>(shape[0] * shape[1], 1);
  if (layout == Layout::channelsLast) return {shape[0] * plane, shape[1], 1};
  return {shape[0], shape[1], plane};
}

// The most channels-last rows that one task sums up, and how many tasks there are at most: enough for any machine's
// threads, and the same on all of them, so that the number of threads changes no sum.
constexpr int64_t leastRows = 64;
constexpr int64_t mostTasks = 64;

inline int64_t tasksOf(const View& v) { return std::clamp<int64_t>(v.outer / leastRows, 1, mostTasks); }

// Rows that are summed up in float32 before they go into a sum in float64, which takes twice as long.
constexpr int64_t rowBlock = 8;

// Where several arrays are read, one row goes after the other, so many channels at once: at strides of a power of two, more
// rows would fight for the same places in the cache.
constexpr int64_t strip = 256;

// Doubles that sumByChannel needs to work with for `kinds` sums.
inline size_t partialsOf(const View& v, int64_t kinds) {
  return v.inner == 1 ? static_cast<size_t>(tasksOf(v) * kinds * v.channels) : 0;
}

// What a ReLU behind an op does to the op's gradient dy: nothing, where there is none; lets through what it let through of
// its result y; and keeps that, for what was added before it.
enum class Mask { none, relu, kept };

// Element i of dy behind the mask. Loaded either way: no branch.
template <Mask mask>
inline __attribute__((always_inline)) float through(const float* dy, const float* y, float* kept, int64_t i) {
  const float gradient = dy[i];
  if (mask == Mask::none) return gradient;
  const float own = y[i] <= 0 ? 0 : gradient;  // NaN lets through, as in PyTorch
  if (mask == Mask::kept) kept[i] = own;
  return own;
}

// The tail of a step, as its kernel is named after it.
inline const char* tailOf(const Builder& b) {
  const bool residual = b.step().flag("residual"), relu = b.step().flag("relu");
  return residual && relu ? "add relu" : residual ? "add" : relu ? "relu" : "";
}

// Fills totals[kinds][C] with sums over a view. `addRows(from, to, sums)` adds the channels-last rows [from, to) to
// sums[kinds][C]; `addPlane(at, c, sums, stride)` adds `inner` elements from index `at`, of channel c, to sums[kind * stride].
template <typename AddRows, typename AddPlane>
void sumByChannel(const View& v, int64_t kinds, double* partials, double* totals, const AddRows& addRows,
                  const AddPlane& addPlane) {
  const int64_t size = kinds * v.channels;
  std::fill(totals, totals + size, 0.0);
  if (v.inner != 1) {
    const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(v.outer * v.inner, 1));
    parallel(v.channels, grain, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c)
        for (int64_t row = 0; row < v.outer; ++row) addPlane((row * v.channels + c) * v.inner, c, totals + c, v.channels);
    });
    return;
  }
  const int64_t tasks = tasksOf(v);
  const int64_t grain = std::max<int64_t>(1, 16384 * tasks / std::max<int64_t>(v.outer * v.channels, 1));
  parallel(tasks, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      double* sums = partials + task * size;
      std::fill(sums, sums + size, 0.0);
      addRows(v.outer * task / tasks, v.outer * (task + 1) / tasks, sums);
    }
  });
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < size; ++i) totals[i] += partials[task * size + i];
}

}  // namespace seresnet::cpu
