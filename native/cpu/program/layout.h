#pragma once

#include "builder.h"

namespace seresnet::cpu {

// A kernel that brings a tensor [N, C, H, W] from one layout into another; one of the two is channels-last.
Kernel convertImages(const Shape& shape, Layout from, Layout to, BufferId source, BufferId target);

// Dims in the order in which they lie in memory, outermost first, for each of several arrays, with neighbours joined that
// all arrays step through evenly.
struct Walk {
  std::vector<int64_t> shape;
  std::vector<std::vector<int64_t>> strides;  // for each array, along `shape`

  // Where index `at` of the walk's row-major order lies in an array.
  int64_t offset(size_t array, int64_t at) const;
  int64_t inner() const { return shape.empty() ? 1 : shape.back(); }
  int64_t step(size_t array) const { return shape.empty() ? 0 : strides[array].back(); }
};

// Strides of a shape's dims in a layout.
std::vector<int64_t> stridesOf(const Shape& shape, Layout layout = Layout::plain);

// The walk over `shape` in the order of `layout`.
Walk walk(const Shape& shape, Layout layout, const std::vector<std::vector<int64_t>>& strides);

}  // namespace seresnet::cpu
