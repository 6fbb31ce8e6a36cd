#include "cuda/kernels/reduce.h"

#include <algorithm>

#include "cuda/kernels/global_pool.h"
#include "cuda/kernels/softmax.h"
#include "ops.h"
#include "walk.h"

namespace seresnet::cuda {

// Sum or mean over some dims.
void reduce(Builder& b) {
  b.expectArity(1, 1);
  const Shape& shape = b.input(0).shape;
  const bool mean = b.step().op == "mean";
  b.expect(b.input(0).dtype == b.output().dtype, "an output of the input's dtype");
  if (mean) b.expectFloats();
  std::vector<bool> reduced(shape.size(), false);
  for (const int64_t dim : b.step().integers("dims")) {
    b.expect(dim >= 0 && dim < static_cast<int64_t>(shape.size()), "dims of the input");
    reduced[static_cast<size_t>(dim)] = true;
  }
  const bool last = shape.size() == 4 && b.common() == Layout::channelsLast;
  const Layout layout = last ? Layout::channelsLast : Layout::plain;
  if (last && reduced == std::vector<bool>{false, false, true, true}) {
    b.expect(b.output().size() == shape[0] * shape[1], "an output of the dims that are kept");
    GlobalPoolArguments arguments;
    arguments.dtype = b.outputType();
    arguments.images = {shape[0], shape[2], shape[3], shape[1]};
    arguments.sum = !mean;
    const BufferId x = b.read(0, layout);
    const BufferId y = b.write(0);
    return b.emit("global pool", [=](Stream stream, const Pointers& p) mutable {
      arguments.x = p.at(x);
      arguments.y = p.at(y);
      launchGlobalPool(stream, arguments);
    });
  }
  const std::vector<int64_t> steps = Builder::strides(shape, layout);
  ReduceArguments arguments;
  arguments.dtype = b.outputType();
  arguments.mean = mean;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    Walk& walk = reduced[dim] ? arguments.reduced : arguments.kept;
    walk.shape[walk.rank] = shape[dim];
    walk.strides[0][walk.rank++] = steps[dim];
  }
  b.expect(arguments.kept.size() == b.output().size(), "an output of the dims that are kept");
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchReduce(stream, arguments);
  });
}

// softmax and log_softmax along one dim.
void softmax(Builder& b) {
  b.expectArity(1, 1);
  b.expectFloats();
  const Shape& shape = b.input(0).shape;
  const auto dim = static_cast<size_t>(b.step().integer("dim", 0));
  b.expect(dim < shape.size() && b.output().shape == shape, "a dim of the input and an output of its shape");
  SoftmaxArguments arguments;
  arguments.dtype = b.outputType();
  arguments.logarithm = b.step().op == "log_softmax";
  arguments.extent = shape[dim];
  arguments.outer = arguments.inner = 1;
  for (size_t i = 0; i < dim; ++i) arguments.outer *= shape[i];
  for (size_t i = dim + 1; i < shape.size(); ++i) arguments.inner *= shape[i];
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(x);
    arguments.y = p.at(y);
    launchSoftmax(stream, arguments);
  });
}

}  // namespace seresnet::cuda
