#include "cuda/kernels/reduce.h"

#include <algorithm>

#include "bind.h"
#include "cuda/kernels/global_pool.h"
#include "cuda/kernels/softmax.h"
#include "ops.h"
#include "ops/reduce.h"
#include "walk.h"

namespace seresnet::cuda {

// Sum or mean over some dims.
void reduce(Builder& b) {
  const ops::Reduce op(b);
  const Shape& shape = b.input(0).shape;
  const bool last = shape.size() == 4 && b.common() == Layout::channelsLast;
  const Layout layout = last ? Layout::channelsLast : Layout::plain;
  if (last && op.reduced == std::vector<bool>{false, false, true, true}) {
    GlobalPoolArguments arguments;
    arguments.dtype = b.outputType();
    arguments.images = {shape[0], shape[2], shape[3], shape[1]};
    arguments.sum = !op.mean;
    return emitLaunch(b, "global pool", launchGlobalPool, arguments,
                      std::tuple{bind<&GlobalPoolArguments::x>(b.read(0, layout)),
                                 bind<&GlobalPoolArguments::y>(b.write(0))});
  }
  const std::vector<int64_t> steps = Builder::strides(shape, layout);
  ReduceArguments arguments;
  arguments.dtype = b.outputType();
  arguments.mean = op.mean;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    Walk& walk = op.reduced[dim] ? arguments.reduced : arguments.kept;
    walk.shape[walk.rank] = shape[dim];
    walk.strides[0][walk.rank++] = steps[dim];
  }
  emitLaunch(b, "", launchReduce, arguments,
             std::tuple{bind<&ReduceArguments::x>(b.read(0, layout)), bind<&ReduceArguments::y>(b.write(0))});
}

// softmax and log_softmax along one dim.
void softmax(Builder& b) {
  const ops::Softmax op(b);
  b.expectOneDtype();
  SoftmaxArguments arguments;
  arguments.dtype = b.outputType();
  arguments.logarithm = op.logarithm;
  arguments.outer = op.outer;
  arguments.extent = op.extent;
  arguments.inner = op.inner;
  emitLaunch(b, "", launchSoftmax, arguments,
             std::tuple{bind<&SoftmaxArguments::x>(b.read(0)), bind<&SoftmaxArguments::y>(b.write(0))});
}

}  // namespace seresnet::cuda
