#include "cuda/kernels/copy.h"

#include "ops.h"
#include "walk.h"

namespace seresnet::cuda {

namespace {

void expectSameKind(Builder& b) {
  b.expectArity(1, 1);
  b.expect(b.input(0).dtype == b.output().dtype && b.input(0).shape.size() == b.output().shape.size(),
           "an output of the input's dtype and rank");
}

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
  expectSameKind(b);
  const Shape& x = b.input(0).shape;
  const Shape& y = b.output().shape;
  const std::vector<int64_t> before = b.step().integers("before", x.size(), 0);
  for (size_t dim = 0; dim < x.size(); ++dim) b.expect(before[dim] + x[dim] <= y[dim], "an output that holds the input");
  const Layout layout = b.common();
  const View target = viewOf(y, layout, before, std::vector<int64_t>(x.size(), 1));
  emitCopy(b, layout, x, Builder::strides(x, layout), 0, target.steps, target.origin, true);
}

void slice(Builder& b) {
  expectSameKind(b);
  const Shape& x = b.input(0).shape;
  const Shape& y = b.output().shape;
  const std::vector<int64_t> starts = b.step().integers("starts", x.size(), 0);
  const std::vector<int64_t> steps = b.step().integers("steps", x.size(), 1);
  for (size_t dim = 0; dim < x.size(); ++dim)
    b.expect(y[dim] == 0 || starts[dim] + (y[dim] - 1) * steps[dim] < x[dim], "a slice inside the input");
  const Layout layout = b.common();
  const View source = viewOf(x, layout, starts, steps);
  emitCopy(b, layout, y, source.steps, source.origin, Builder::strides(y, layout), 0, false);
}

void sliceGradient(Builder& b) {
  expectSameKind(b);
  const Shape& dy = b.input(0).shape;
  const Shape& dx = b.output().shape;
  const std::vector<int64_t> starts = b.step().integers("starts", dy.size(), 0);
  const std::vector<int64_t> steps = b.step().integers("steps", dy.size(), 1);
  for (size_t dim = 0; dim < dy.size(); ++dim)
    b.expect(dy[dim] == 0 || starts[dim] + (dy[dim] - 1) * steps[dim] < dx[dim], "a slice inside the output");
  const Layout layout = b.common();
  const View target = viewOf(dx, layout, starts, steps);
  emitCopy(b, layout, dy, Builder::strides(dy, layout), 0, target.steps, target.origin, true);
}

// The last two dims exchanged.
void transpose(Builder& b) {
  b.expectArity(1, 1);
  b.expect(b.input(0).dtype == b.output().dtype, "an output of the input's dtype");
  const Shape& x = b.input(0).shape;
  b.expect(x.size() >= 2 && b.output().shape.size() == x.size(), "matrices");
  Shape shape = x;
  std::swap(shape[x.size() - 1], shape[x.size() - 2]);
  b.expect(b.output().shape == shape, "the last two dims exchanged");
  std::vector<int64_t> steps = Builder::strides(x, Layout::plain);
  std::swap(steps[x.size() - 1], steps[x.size() - 2]);
  emitCopy(b, Layout::plain, shape, steps, 0, Builder::strides(shape, Layout::plain), 0, false);
}

void reshape(Builder& b) {
  b.expectArity(1, 1);
  b.expect(b.input(0).dtype == b.output().dtype && b.input(0).size() == b.output().size(), "an output of as many elements");
  b.alias(0);
}

}  // namespace seresnet::cuda
