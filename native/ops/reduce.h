#pragma once

#include "step_view.h"

namespace seresnet::ops {

// sum and mean over `dims`; whether those are kept with extent 1 only shows in the output's shape
struct Reduce {
  std::vector<bool> reduced;  // for each dim of the input
  bool mean;

  explicit Reduce(const StepView& s) : mean(s.step().op == "mean") {
    s.expectArity(1, 1);
    s.expect(s.input(0).dtype == s.output().dtype, "an output of the input's dtype");
    if (mean) s.expectFloats();
    const Shape& shape = s.input(0).shape;
    reduced.resize(shape.size(), false);
    for (const int64_t dim : s.step().integers("dims")) {
      s.expect(dim >= 0 && dim < static_cast<int64_t>(shape.size()), "dims of the input");
      reduced[static_cast<size_t>(dim)] = true;
    }
    int64_t kept = 1;
    for (size_t dim = 0; dim < shape.size(); ++dim)
      if (!reduced[dim]) kept *= shape[dim];
    s.expect(kept == s.output().size(), "an output of the dims that are kept");
  }
};

// softmax and log_softmax along one dim of [outer, extent, inner]
struct Softmax {
  int64_t outer = 1, extent = 1, inner = 1;
  bool logarithm;

  explicit Softmax(const StepView& s) : logarithm(s.step().op == "log_softmax") {
    s.expectArity(1, 1);
    s.expectFloats();
    const Shape& shape = s.input(0).shape;
    const auto dim = static_cast<size_t>(s.step().integer("dim", 0));
    s.expect(dim < shape.size() && s.output().shape == shape, "a dim of the input and an output of its shape");
    for (size_t i = 0; i < dim; ++i) outer *= shape[i];
    extent = shape[dim];
    for (size_t i = dim + 1; i < shape.size(); ++i) inner *= shape[i];
  }
};

}  // namespace seresnet::ops
