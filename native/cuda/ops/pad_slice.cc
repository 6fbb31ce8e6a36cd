#include "cuda/kernels/copy.h"

#include "ops.h"
#include "ops/pad_slice.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

// A kernel that moves the elements of `shape` from x to y, stepping so far in each, from these origins on.
void emitCopy(Builder& b, Layout layout, const Shape& shape, const std::vector<int64_t>& xSteps, int64_t xOrigin,
              const std::vector<int64_t>& ySteps, int64_t yOrigin, bool clear) {
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0, layout);
  CopyArguments arguments;
  const size_t width = deviceBytes(b.outputType());
  arguments.width = static_cast<int>(width);
  arguments.walk = walkOver(shape, layout, {xSteps, ySteps});
  const size_t bytes = static_cast<size_t>(b.output().size()) * width;
  // of what is larger, the part that is moved; cleared memory is written before
  const double elements = static_cast<double>(sizeOf(shape));
  if (b.input(0).size() > 0) b.passes(x, elements / static_cast<double>(b.input(0).size()));
  if (b.output().size() > 0) b.passes(y, (clear ? 1 : 0) + elements / static_cast<double>(b.output().size()));
  b.emit("", [=](Stream stream, const Pointers& p) mutable {
    if (clear && bytes > 0) gpu::clear(stream, p.at(y), bytes);
    arguments.x = p.at<char>(x) + static_cast<size_t>(xOrigin) * width;
    arguments.y = p.at<char>(y) + static_cast<size_t>(yOrigin) * width;
    launchCopy(stream, arguments);
  });
}

struct View {
  std::vector<int64_t> steps;
  int64_t origin = 0;
};

// Every `step`-th element of a dense array of `shape` from `starts` on.
View viewOf(const Shape& shape, Layout layout, const std::vector<int64_t>& starts, const std::vector<int64_t>& steps) {
  View view{Builder::strides(shape, layout)};
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    view.origin += starts[dim] * view.steps[dim];
    view.steps[dim] *= steps[dim];
  }
  return view;
}

}  // namespace

void pad(Builder& b) {
  const ops::Pad op(b);
  const Shape& x = b.input(0).shape;
  const Layout layout = b.common();
  const View target = viewOf(b.output().shape, layout, op.before, std::vector<int64_t>(x.size(), 1));
  emitCopy(b, layout, x, Builder::strides(x, layout), 0, target.steps, target.origin, true);
}

void slice(Builder& b) {
  const ops::Slice op(b);
  const Shape& y = b.output().shape;
  const Layout layout = b.common();
  const View source = viewOf(b.input(0).shape, layout, op.starts, op.steps);
  emitCopy(b, layout, y, source.steps, source.origin, Builder::strides(y, layout), 0, false);
}

void sliceGradient(Builder& b) {
  const ops::Slice op(b);
  const Shape& dy = b.input(0).shape;
  const Layout layout = b.common();
  const View target = viewOf(b.output().shape, layout, op.starts, op.steps);
  emitCopy(b, layout, dy, Builder::strides(dy, layout), 0, target.steps, target.origin, true);
}

// The last two dims exchanged.
void transpose(Builder& b) {
  ops::checkTranspose(b);
  const Shape& x = b.input(0).shape;
  const Shape& y = b.output().shape;
  std::vector<int64_t> steps = Builder::strides(x, Layout::plain);
  std::swap(steps[x.size() - 1], steps[x.size() - 2]);
  emitCopy(b, Layout::plain, y, steps, 0, Builder::strides(y, Layout::plain), 0, false);
}

void reshape(Builder& b) {
  ops::checkReshape(b);
  b.alias(0);
}

}  // namespace seresnet::cuda
