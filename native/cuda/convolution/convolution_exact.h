#pragma once

#include "convolution.h"

// What a convolution is, in plain loops with float64 sums: the judge of engines, and all of the engine that runs on the host.
namespace seresnet::cuda {

enum class Operand : uint8_t { x, w, y, gate, bias, residual };

inline int64_t elementsOf(const Convolution& c, Operand operand) {
  switch (operand) {
    case Operand::x:
      return c.batch * c.height * c.width * c.channels;
    case Operand::w:
      return c.outChannels * c.kernel[0] * c.kernel[1] * (c.channels / c.groups);
    case Operand::gate:
      return c.batch * c.outChannels;
    case Operand::bias:
      return c.outChannels;
    default:
      return c.batch * c.outHeight * c.outWidth * c.outChannels;
  }
}

inline Operand resultOf(const Convolution& c) {
  if (c.pass == Convolution::Pass::inputGradient) return Operand::x;
  return c.pass == Convolution::Pass::weightGradient ? Operand::w : Operand::y;
}

// How many products a result's element is the sum of, at most.
inline int64_t productsOf(const Convolution& c) {
  const int64_t taps = c.kernel[0] * c.kernel[1];
  if (c.pass == Convolution::Pass::inputGradient) return taps * (c.outChannels / c.groups);
  return c.pass == Convolution::Pass::weightGradient ? c.batch * c.outHeight * c.outWidth : taps * (c.channels / c.groups);
}

// Multiply-adds of the whole, those with padding included.
inline int64_t macsOf(const Convolution& c) {
  return c.batch * c.outHeight * c.outWidth * c.outChannels * c.kernel[0] * c.kernel[1] * (c.channels / c.groups);
}

// Element `index` of the result; `at(operand, i)` is element i of an operand.
template <typename At>
double exactElement(const Convolution& c, int64_t index, const At& at) {
  const int64_t fan = c.channels / c.groups, heads = c.outChannels / c.groups;
  const auto xAt = [&](int64_t n, int64_t h, int64_t w, int64_t channel) {
    return at(Operand::x, ((n * c.height + h) * c.width + w) * c.channels + channel);
  };
  const auto yAt = [&](int64_t n, int64_t h, int64_t w, int64_t o) {
    return at(Operand::y, ((n * c.outHeight + h) * c.outWidth + w) * c.outChannels + o);
  };
  const auto wAt = [&](int64_t o, int64_t i, int64_t j, int64_t channel) {
    return at(Operand::w, ((o * c.kernel[0] + i) * c.kernel[1] + j) * fan + channel);
  };
  // where tap i of output h reads along a dim
  const auto reads = [&](int dim, int64_t h, int64_t i) { return h * c.stride[dim] - c.padding[dim] + i * c.dilation[dim]; };
  double sum = 0;
  if (c.pass == Convolution::Pass::weightGradient) {
    const int64_t channel = index % fan, j = index / fan % c.kernel[1], i = index / fan / c.kernel[1] % c.kernel[0];
    const int64_t o = index / fan / c.kernel[1] / c.kernel[0];
    for (int64_t n = 0; n < c.batch; ++n)
      for (int64_t h = 0; h < c.outHeight; ++h) {
        const int64_t row = reads(0, h, i);
        if (row < 0 || row >= c.height) continue;
        for (int64_t w = 0; w < c.outWidth; ++w) {
          const int64_t column = reads(1, w, j);
          if (column >= 0 && column < c.width) sum += yAt(n, h, w, o) * xAt(n, row, column, o / heads * fan + channel);
        }
      }
    return sum;
  }
  if (c.pass == Convolution::Pass::inputGradient) {
    const int64_t channel = index % c.channels, column = index / c.channels % c.width;
    const int64_t row = index / c.channels / c.width % c.height, n = index / c.channels / c.width / c.height;
    const int64_t first = channel / fan * heads;
    for (int64_t i = 0; i < c.kernel[0]; ++i) {
      const int64_t down = row + c.padding[0] - i * c.dilation[0];
      if (down < 0 || down % c.stride[0] != 0 || down / c.stride[0] >= c.outHeight) continue;
      for (int64_t j = 0; j < c.kernel[1]; ++j) {
        const int64_t right = column + c.padding[1] - j * c.dilation[1];
        if (right < 0 || right % c.stride[1] != 0 || right / c.stride[1] >= c.outWidth) continue;
        for (int64_t o = first; o < first + heads; ++o)
          sum += yAt(n, down / c.stride[0], right / c.stride[1], o) * wAt(o, i, j, channel % fan);
      }
    }
    return sum;
  }
  const int64_t o = index % c.outChannels, w = index / c.outChannels % c.outWidth;
  const int64_t h = index / c.outChannels / c.outWidth % c.outHeight, n = index / c.outChannels / c.outWidth / c.outHeight;
  for (int64_t i = 0; i < c.kernel[0]; ++i) {
    const int64_t row = reads(0, h, i);
    if (row < 0 || row >= c.height) continue;
    for (int64_t j = 0; j < c.kernel[1]; ++j) {
      const int64_t column = reads(1, w, j);
      if (column < 0 || column >= c.width) continue;
      for (int64_t channel = 0; channel < fan; ++channel)
        sum += xAt(n, row, column, o / heads * fan + channel) * wAt(o, i, j, channel);
    }
  }
  if (c.bias) sum += at(Operand::bias, o);
  if (c.gate) sum *= at(Operand::gate, n * c.outChannels + o);
  if (c.residual) sum += at(Operand::residual, index);
  return c.relu && sum < 0 ? 0 : sum;
}

}  // namespace seresnet::cuda
