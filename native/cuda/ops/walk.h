#pragma once

#include <vector>

#include "cuda/program/builder.h"

namespace seresnet::cuda {

// The dims of `shape` in the order of a layout, with the steps of up to three arrays along them, given in N, C, H, W order.
inline Walk walkOver(const Shape& shape, Layout layout, const std::vector<std::vector<int64_t>>& arrays) {
  Walk walk;
  walk.rank = static_cast<int>(shape.size());
  const bool last = layout == Layout::channelsLast && shape.size() == 4;
  constexpr size_t order[] = {0, 2, 3, 1};
  for (size_t i = 0; i < shape.size(); ++i) {
    const size_t dim = last ? order[i] : i;
    walk.shape[i] = shape[dim];
    for (size_t array = 0; array < arrays.size(); ++array) walk.strides[array][i] = arrays[array][dim];
  }
  return walk;
}

}  // namespace seresnet::cuda
