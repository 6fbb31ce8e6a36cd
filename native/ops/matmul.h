#pragma once

#include "broadcast.h"

namespace seresnet::ops {

// x [..., I], weight [O, I], bias [O]? -> x · weightᵀ (+ bias) [..., O]
struct Linear {
  int64_t rows = 0, depth, features;  // the product of the leading extents, I, O
  bool bias;

  explicit Linear(const StepView& s) {
    s.expectArity(2, 3);
    s.expectFloats();
    const Shape& weight = s.input(1).shape;
    s.expect(weight.size() == 2, "a weight [O, I]");
    features = weight[0];
    depth = weight[1];
    bias = s.inputs() == 3;
    Shape shape = s.input(0).shape;
    s.expect(!shape.empty() && shape.back() == depth, "x [..., I]");
    shape.back() = features;
    s.expect(s.output().shape == shape, "y [..., O]");
    if (features > 0) rows = s.output().size() / features;
    if (bias) s.expect(s.input(2).shape == Shape{features}, "a bias [O]");
  }
};

// [..., M, K], [..., K, N] -> their product [..., M, N]; leading extents broadcast
struct Matmul {
  int64_t height, width, depth;      // M, N, K
  Shape leading;                     // of the result
  std::vector<int64_t> left, right;  // how many matrices further the next index of each leading dim is; 0 where it repeats

  explicit Matmul(const StepView& s) {
    s.expectArity(2, 2);
    s.expectFloats();
    const Shape& a = s.input(0).shape;
    const Shape& b = s.input(1).shape;
    const Shape& y = s.output().shape;
    s.expect(a.size() >= 2 && b.size() >= 2 && y.size() >= 2, "matrices");
    height = y[y.size() - 2];
    width = y.back();
    depth = a.back();
    s.expect(a[a.size() - 2] == height && b.back() == width && b[b.size() - 2] == depth,
             "[..., M, K] and [..., K, N] -> [..., M, N]");
    leading = Shape(y.begin(), y.end() - 2);
    const auto strides = [&](const Shape& shape) {
      const Shape own(shape.begin(), shape.end() - 2);
      return broadcastStrides(s, own, rowMajorStrides(own), leading);
    };
    left = strides(a);
    right = strides(b);
  }
};

}  // namespace seresnet::ops
