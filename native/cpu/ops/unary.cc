#include <cmath>

#include "cpu/loops/integers.h"
#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "ops.h"
#include "ops/elementwise.h"

namespace seresnet::cpu {

namespace {

using Loop = void (*)(const float* x, float* y, int64_t count);

SERESNET_CLONES void negLoop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = -x[i];
}

SERESNET_CLONES void sqrtLoop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::sqrt(x[i]);
}

void sigmoidLoop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = 1.F / (1.F + std::exp(-x[i]));
}

void expLoop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::exp(x[i]);
}

void logLoop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::log(x[i]);
}

Loop loopOf(ops::Unary op) {
  switch (op) {
    case ops::Unary::relu:
      return relu;
    case ops::Unary::sigmoid:
      return sigmoidLoop;
    case ops::Unary::sqrt:
      return sqrtLoop;
    case ops::Unary::exp:
      return expLoop;
    case ops::Unary::log:
      return logLoop;
    case ops::Unary::neg:
      return negLoop;
  }
  throw Error("unary", "an op without a loop");
}

template <typename From, typename To>
To convert(From value) {
  if constexpr (std::is_same_v<To, float>) return static_cast<float>(static_cast<double>(value));
  else if constexpr (std::is_integral_v<From>) return static_cast<To>(static_cast<uint64_t>(value));
  else return static_cast<To>(wrapped(value));
}

template <typename From, typename To>
Kernel castKernel(BufferId x, BufferId y, int64_t count) {
  return [=](const Pointers& p) {
    const From* from = p.at<From>(x);
    To* to = p.at<To>(y);
    parallel(count, 16384, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) to[i] = convert<From, To>(from[i]);
    });
  };
}

template <typename From>
Kernel castFrom(DType to, BufferId x, BufferId y, int64_t count) {
  switch (to) {
    case DType::int32:
      return castKernel<From, int32_t>(x, y, count);
    case DType::int64:
      return castKernel<From, int64_t>(x, y, count);
    case DType::uint8:
      return castKernel<From, uint8_t>(x, y, count);
    default:
      return castKernel<From, float>(x, y, count);
  }
}

SERESNET_CLONES void reluGradientLoop(const float* y, const float* dy, float* dx, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = dy[i];  // loaded whether it is used or not, so that the loop has no branch
    dx[i] = y[i] <= 0 ? 0 : gradient;  // NaN lets through, as in PyTorch
  }
}

SERESNET_CLONES void sigmoidGradientLoop(const float* y, const float* dy, float* dx, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dx[i] = dy[i] * y[i] * (1 - y[i]);
}

}  // namespace

// relu, sigmoid, sqrt, exp, log, neg: x -> y of its shape, in whatever layout x has.
void unary(Builder& b) {
  const Loop loop = loopOf(ops::unary(b));
  const Layout layout = b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0, layout);
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    parallel(count, 8192, [&](int64_t first, int64_t last) { loop(p.at(x) + first, p.at(y) + first, last - first); });
  });
}

void cast(Builder& b) {
  ops::checkCast(b);
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const int64_t count = b.output().size();
  const DType to = b.output().dtype;
  switch (b.input(0).dtype) {
    case DType::int32:
      return b.emit("", castFrom<int32_t>(to, x, y, count));
    case DType::int64:
      return b.emit("", castFrom<int64_t>(to, x, y, count));
    case DType::uint8:
      return b.emit("", castFrom<uint8_t>(to, x, y, count));
    default:
      return b.emit("", castFrom<float>(to, x, y, count));
  }
}

// relu_gradient and sigmoid_gradient: y, dy -> dx
void activationGradient(Builder& b) {
  ops::checkActivationGradient(b);
  const Layout layout = b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
  const BufferId y = b.read(0, layout);
  const BufferId dy = b.read(1, layout);
  const BufferId dx = b.write(0, layout);
  const bool relu = b.step().op == "relu_gradient";
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      const auto loop = relu ? reluGradientLoop : sigmoidGradientLoop;
      loop(p.at(y) + first, p.at(dy) + first, p.at(dx) + first, last - first);
    });
  });
}

}  // namespace seresnet::cpu
