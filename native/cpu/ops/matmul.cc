#include "cpu/device/dnnl_adapter.h"
#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "cpu/program/layout.h"
#include "ops.h"
#include "ops/matmul.h"

namespace seresnet::cpu {

namespace {

// Up to so many rows it is all about reading the weights once, which dot products do.
constexpr int64_t fewRows = 2;

// y [rows, features] = x [rows, depth] · weight [features, depth]ᵀ
template <typename T>
void dotProducts(int64_t rows, int64_t features, int64_t depth, const float* x, const T* weight, float* y) {
  parallel(features, std::max<int64_t>(1, 8192 / std::max<int64_t>(depth, 1)), [&](int64_t first, int64_t last) {
    for (int64_t feature = first; feature < last; ++feature)
      for (int64_t row = 0; row < rows; ++row)
        y[row * features + feature] = dot(x + row * depth, weight + feature * depth, depth);
  });
}

// A constant in bfloat16.
std::shared_ptr<HostMemory> rounded(const HostMemory& contents) {
  const auto count = static_cast<int64_t>(contents.bytes() / sizeof(float));
  auto result = std::make_shared<HostMemory>(static_cast<size_t>(count) * sizeof(Bfloat16));
  round(contents.data<float>(), result->data<Bfloat16>(), count);
  return result;
}

}  // namespace

// y [..., O] = x [..., I] · weight [O, I]ᵀ + bias [O]?
void linear(Builder& b) {
  const ops::Linear op(b);
  const int64_t rows = op.rows, depth = op.depth, features = op.features;
  // half the bytes to read, which is what dot products spend their time on
  const bool halves = b.rounds() && rows <= fewRows && b.isConstant(1);
  const BufferId x = b.read(0);
  const BufferId weight = halves ? b.derived(1, "bfloat16", rounded) : b.read(1);
  const BufferId bias = op.bias ? b.read(2) : -1;
  const BufferId y = b.write(0);
  b.emit(halves ? "bfloat16" : "", [=](const Pointers& p) {
    float* out = p.at(y);
    if (rows == 0) return;
    if (depth == 0) std::fill(out, out + rows * features, 0.F);
    else if (halves) dotProducts(rows, features, depth, p.at(x), p.at<Bfloat16>(weight), out);
    else if (rows <= fewRows) dotProducts(rows, features, depth, p.at(x), p.at(weight), out);
    else multiply(true, rows, features, depth, p.at(x), p.at(weight), out);
    if (bias < 0) return;
    const float* shift = p.at(bias);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < features; ++i) out[row * features + i] += shift[i];
  });
}

// y [..., M, N] = a [..., M, K] · b [..., K, N], the leading dims broadcast.
void matmul(Builder& b) {
  const ops::Matmul op(b);
  const int64_t height = op.height, width = op.width, depth = op.depth;
  const auto times = [](std::vector<int64_t> strides, int64_t matrix) {
    for (int64_t& stride : strides) stride *= matrix;
    return strides;
  };
  const Walk steps =
      walk(op.leading, Layout::plain, {times(op.left, height * depth), times(op.right, depth * width)});
  const BufferId first = b.read(0);
  const BufferId second = b.read(1);
  const BufferId out = b.write(0);
  const int64_t count = b.output().size() == 0 ? 0 : sizeOf(op.leading);
  b.emit("", [=](const Pointers& p) {
    for (int64_t i = 0; i < count; ++i) {
      float* matrix = p.at(out) + i * height * width;
      if (depth == 0) std::fill(matrix, matrix + height * width, 0.F);
      else
        multiply(false, height, width, depth, p.at(first) + steps.offset(0, i), p.at(second) + steps.offset(1, i), matrix);
    }
  });
}

}  // namespace seresnet::cpu
