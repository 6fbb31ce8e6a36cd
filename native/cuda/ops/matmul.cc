#include <numeric>

#include "cuda/kernels/copy.h"
#include "emit_convolution.h"
#include "ops.h"
#include "ops/matmul.h"

namespace seresnet::cuda {

namespace {

// A matrix product x [rows, depth] times w [features, depth] transposed, as the 1x1 convolution that it is.
Convolution product(Builder& b, int64_t rows, int64_t depth, int64_t features) {
  Convolution c;
  c.dtype = b.outputType();
  c.tf32 = b.tf32();
  c.batch = rows;
  c.channels = depth;
  c.outChannels = features;
  c.height = c.width = c.outHeight = c.outWidth = 1;
  return c;
}

// The bytes that addresses are multiples of which are so many elements apart, 16 at most.
int64_t alignmentOf(int64_t elements, size_t element) {
  return std::gcd(elements * static_cast<int64_t>(element), int64_t{16});
}

}  // namespace

// x [..., I], weight [O, I], bias [O]? -> [..., O]
void linear(Builder& b) {
  const ops::Linear op(b);
  b.expectOneDtype();
  b.expect(b.output().size() > 0 && b.input(0).size() > 0, "matrices that are not empty");
  Convolution c = product(b, op.rows, op.depth, op.features);
  c.bias = op.bias;
  ConvolutionBuffers buffers;
  buffers.x = b.read(0);
  buffers.w = b.read(1);
  if (c.bias) buffers.bias = b.read(2);
  buffers.y = b.write(0);
  emitConvolution(b, c, buffers);
}

// [..., M, K] x [..., K, N] -> [..., M, N]; leading extents broadcast. One product for each pair of matrices, after the
// right ones have been transposed.
void matmul(Builder& b) {
  const ops::Matmul op(b);
  b.expectOneDtype();
  const int64_t height = op.height, width = op.width, depth = op.depth;
  b.expect(b.output().size() > 0 && depth > 0, "matrices that are not empty");
  const Shape& left = b.input(0).shape;
  std::vector<std::pair<int64_t, int64_t>> pairs{{0, 0}};
  for (size_t dim = 0; dim < op.leading.size(); ++dim) {
    std::vector<std::pair<int64_t, int64_t>> more;
    for (const auto& [a, c] : pairs)
      for (int64_t i = 0; i < op.leading[dim]; ++i) more.emplace_back(a + i * op.left[dim], c + i * op.right[dim]);
    pairs = std::move(more);
  }

  Convolution c = product(b, height, depth, width);
  const size_t element = deviceBytes(c.dtype);
  const int64_t matrices = b.input(1).size() / (depth * width);
  // only the first of several matrices need begin at a multiple of 16 bytes; the turned ones lie as we like
  if (left.size() > 2 && b.input(0).size() > height * depth) c.xAlignment = alignmentOf(height * depth, element);
  if (pairs.size() > 1) c.yAlignment = alignmentOf(height * width, element);
  const int64_t apart = (depth * width + 7) / 8 * 8;
  const auto plan = b.engine().plan(c);
  if (!plan) throw Error("matmul", "cuDNN has no engine for " + c.text());
  const BufferId a = b.read(0);
  const BufferId from = b.read(1);
  const BufferId turned = b.scratch(static_cast<size_t>(matrices * apart) * element);
  const BufferId workspace = b.scratch(plan->workspace());
  const BufferId out = b.write(0);
  CopyArguments copy;
  copy.width = static_cast<int>(element);
  copy.walk.rank = 3;
  const int64_t extents[] = {matrices, width, depth};
  const int64_t source[] = {depth * width, 1, width};
  const int64_t target[] = {apart, depth, 1};
  for (int i = 0; i < 3; ++i) {
    copy.walk.shape[i] = extents[i];
    copy.walk.strides[0][i] = source[i];
    copy.walk.strides[1][i] = target[i];
  }
  b.passes(turned, 2);  // written, then read
  b.computes(2.0 * static_cast<double>(pairs.size()) * static_cast<double>(height * width * depth));
  b.emit(plan->name(), [=](Stream stream, const Pointers& p) mutable {
    copy.x = p.at(from);
    copy.y = p.at(turned);
    launchCopy(stream, copy);
    char* y = p.at<char>(out);
    for (const auto& [i, j] : pairs) {
      ConvolutionPointers pointers;
      pointers.x = p.at<char>(a) + static_cast<size_t>(i * height * depth) * element;
      pointers.w = p.at<char>(turned) + static_cast<size_t>(j * apart) * element;
      pointers.y = y;
      pointers.workspace = p.at(workspace);
      plan->run(stream, pointers);
      y += static_cast<size_t>(height * width) * element;
    }
  });
}

}  // namespace seresnet::cuda
