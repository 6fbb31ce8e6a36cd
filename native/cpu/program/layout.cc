#include "layout.h"

#include <algorithm>
#include <cstring>

#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "ops/broadcast.h"

namespace seresnet::cpu {

namespace {

constexpr int64_t tile = 16;

// to [columns, rows] = from [rows, columns] transposed, for rows [first, last).
SERESNET_CLONES void transpose(const float* from, float* to, int64_t rows, int64_t columns, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row += tile) {
    const int64_t rowEnd = std::min(row + tile, last);
    for (int64_t column = 0; column < columns; column += tile) {
      const int64_t columnEnd = std::min(column + tile, columns);
      for (int64_t i = column; i < columnEnd; ++i)
        for (int64_t k = row; k < rowEnd; ++k) to[i * rows + k] = from[k * columns + i];
    }
  }
}

// Between N, C, H, W and N, H, W, C.
Kernel transposed(const Shape& shape, Layout to, BufferId from, BufferId destination) {
  const int64_t images = shape[0];
  const int64_t plane = shape[2] * shape[3];
  const int64_t rows = to == Layout::channelsLast ? shape[1] : plane;
  const int64_t columns = to == Layout::channelsLast ? plane : shape[1];
  return [=](const Pointers& p) {
    const float* source = p.at(from);
    float* target = p.at(destination);
    // the longer side is shared out in tiles
    const bool byRows = rows >= columns;
    const int64_t length = byRows ? rows : columns;
    const int64_t tiles = (length + tile - 1) / tile;
    parallel(images * tiles, 16, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        const int64_t image = at / tiles * rows * columns;
        const int64_t start = at % tiles * tile;
        const int64_t end = std::min(start + tile, length);
        if (byRows) {
          transpose(source + image, target + image, rows, columns, start, end);
          continue;
        }
        for (int64_t i = start; i < end; ++i)
          for (int64_t k = 0; k < rows; ++k) target[image + i * rows + k] = source[image + k * columns + i];
      }
    });
  };
}

// Between N, H, W, C and N, C / 16, H, W, 16.
Kernel reblocked(const Shape& shape, Layout to, BufferId from, BufferId destination) {
  constexpr int64_t width = 16;
  const int64_t blocks = shape[1] / width;
  const int64_t plane = shape[2] * shape[3];
  const int64_t rows = shape[0] * blocks;
  return [=](const Pointers& p) {
    const float* source = p.at(from);
    float* target = p.at(destination);
    parallel(rows * plane, 1024, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {  // in the order of the blocked image
        const int64_t row = at / plane;
        const int64_t pixel = row / blocks * plane + at % plane;
        const int64_t there = (pixel * blocks + row % blocks) * width;
        const int64_t blocked = at * width;
        if (to == Layout::blocked) std::memcpy(target + blocked, source + there, width * sizeof(float));
        else std::memcpy(target + there, source + blocked, width * sizeof(float));
      }
    });
  };
}

}  // namespace

Kernel convertImages(const Shape& shape, Layout from, Layout to, BufferId source, BufferId target) {
  if (from == Layout::plain || to == Layout::plain) return transposed(shape, to, source, target);
  if (from == Layout::blocked || to == Layout::blocked) return reblocked(shape, to, source, target);
  return [=, size = sizeOf(shape)](const Pointers& p) {
    parallel(size, 16384, [&](int64_t first, int64_t last) {
      if (to == Layout::bfloat16) round(p.at(source) + first, p.at<Bfloat16>(target) + first, last - first);
      else widen(p.at<Bfloat16>(source) + first, p.at(target) + first, last - first);
    });
  };
}

std::vector<int64_t> stridesOf(const Shape& shape, Layout layout) {
  if (layout == Layout::channelsLast)
    return {shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1]};
  return ops::rowMajorStrides(shape);
}

Walk walk(const Shape& shape, Layout layout, const std::vector<std::vector<int64_t>>& strides) {
  std::vector<size_t> order(shape.size());
  for (size_t dim = 0; dim < order.size(); ++dim) order[dim] = dim;
  if (layout == Layout::channelsLast) order = {0, 2, 3, 1};
  Walk result;
  result.strides.resize(strides.size());
  for (const size_t dim : order) {
    if (shape[dim] == 1) continue;
    bool even = !result.shape.empty();
    for (size_t i = 0; even && i < strides.size(); ++i)
      even = result.strides[i].back() == strides[i][dim] * shape[dim];
    if (even) result.shape.back() *= shape[dim];
    else result.shape.push_back(shape[dim]);
    for (size_t i = 0; i < strides.size(); ++i) {
      if (even) result.strides[i].back() = strides[i][dim];
      else result.strides[i].push_back(strides[i][dim]);
    }
  }
  return result;
}

int64_t Walk::offset(size_t array, int64_t at) const {
  int64_t offset = 0;
  for (size_t dim = shape.size(); dim-- > 0; at /= shape[dim]) offset += at % shape[dim] * strides[array][dim];
  return offset;
}

}  // namespace seresnet::cpu
