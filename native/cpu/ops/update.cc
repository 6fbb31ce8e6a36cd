#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/update.h"

namespace seresnet::cpu {

namespace {

void copy(const float* from, int64_t count, float* to) {
  parallel(count, 16384, [&](int64_t first, int64_t last) { std::copy(from + first, from + last, to + first); });
}

}  // namespace

// One step of PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay, skip? -> parameter, velocity.
void sgd(Builder& b) {
  const ops::Sgd op(b);
  BufferId in[6];
  for (size_t i = 0; i < 6; ++i) in[i] = b.read(i);
  const BufferId parameter = in[0], gradient = in[1], velocity = in[2], lr = in[3], momentum = in[4], decay = in[5];
  const BufferId skip = op.skips ? b.read(6) : -1;
  const BufferId newParameter = b.write(0);
  const BufferId newVelocity = b.write(1);
  b.emit("", [=, nesterov = op.nesterov, count = b.output().size()](const Pointers& p) {
    if (skip >= 0 && *p.at(skip) != 0) {
      copy(p.at(parameter), count, p.at(newParameter));
      return copy(p.at(velocity), count, p.at(newVelocity));
    }
    const float rate = *p.at(lr), factor = *p.at(momentum), shrink = *p.at(decay);
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const float g = p.at(gradient)[i] + shrink * p.at(parameter)[i];
        const float v = factor * p.at(velocity)[i] + g;
        p.at(newVelocity)[i] = v;
        p.at(newParameter)[i] = p.at(parameter)[i] - rate * (nesterov ? g + factor * v : v);
      }
    });
  });
}

// One step of AdamW: parameter, gradient, two moments, lr, beta1, beta2, eps, weightDecay, step, skip? -> parameter, moments.
void adamw(Builder& b) {
  const ops::Adamw op(b);
  std::vector<BufferId> in;
  for (size_t i = 0; i < b.inputs(); ++i) in.push_back(b.read(i));
  const BufferId newParameter = b.write(0);
  const BufferId newFirst = b.write(1);
  const BufferId newSecond = b.write(2);
  const BufferId skip = op.skips ? in[10] : -1;
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    if (skip >= 0 && *p.at(skip) != 0) {
      copy(p.at(in[0]), count, p.at(newParameter));
      copy(p.at(in[2]), count, p.at(newFirst));
      return copy(p.at(in[3]), count, p.at(newSecond));
    }
    const auto setting = [&](size_t i) { return static_cast<double>(*p.at(in[i])); };
    const double lr = setting(4), beta1 = setting(5), beta2 = setting(6), eps = setting(7), decay = setting(8);
    const double correction1 = 1 - std::pow(beta1, setting(9));
    const double correction2 = std::sqrt(1 - std::pow(beta2, setting(9)));
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const double g = p.at(in[1])[i];
        const double m = beta1 * p.at(in[2])[i] + (1 - beta1) * g;
        const double v = beta2 * p.at(in[3])[i] + (1 - beta2) * g * g;
        p.at(newFirst)[i] = static_cast<float>(m);
        p.at(newSecond)[i] = static_cast<float>(v);
        const double kept = p.at(in[0])[i] * (1 - lr * decay);
        p.at(newParameter)[i] = static_cast<float>(kept - lr / correction1 * m / (std::sqrt(v) / correction2 + eps));
      }
    });
  });
}

namespace {

using Tensors = std::vector<std::pair<BufferId, int64_t>>;

// `count` inputs, each with its number of elements.
Tensors readAll(Builder& b, size_t count, size_t first = 0) {
  Tensors all;
  for (size_t i = first; i < first + count; ++i) all.emplace_back(b.read(i), b.input(i).size());
  return all;
}

// New buffers for all outputs.
std::vector<BufferId> writeAll(Builder& b) {
  std::vector<BufferId> all;
  for (size_t i = 0; i < b.step().outputs.size(); ++i) all.push_back(b.write(i));
  return all;
}

SERESNET_CLONES double squaresOf(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace

// Any number of tensors -> 1 if one of their elements is not finite, else 0.
void foundInf(Builder& b) {
  ops::checkScalarOfAll(b);
  const Tensors tensors = readAll(b, b.inputs());
  const BufferId found = b.write(0);
  b.emit("", [=](const Pointers& p) {
    std::atomic<bool> any{false};
    for (const auto& [id, count] : tensors)
      parallel(count, 16384, [&, x = p.at(id)](int64_t first, int64_t last) {
        uint32_t largest = 0;  // an exponent of ones stands for infinity and NaN
        for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7f800000U);
        if (largest == 0x7f800000U) any = true;
      });
    *p.at(found) = any ? 1.F : 0.F;
  });
}

// Any number of tensors -> the Euclidean norm of all their elements. Sums are over parts of one length in one order, so that
// the number of threads changes nothing.
void globalNorm(Builder& b) {
  ops::checkScalarOfAll(b);
  constexpr int64_t part = 16384;
  const auto partsOf = [](int64_t count) { return (count + part - 1) / part; };
  const Tensors tensors = readAll(b, b.inputs());
  int64_t most = 0;
  for (const auto& [id, count] : tensors) most = std::max(most, partsOf(count));
  const BufferId work = b.scratch(static_cast<size_t>(std::max<int64_t>(most, 1)) * sizeof(double));
  const BufferId norm = b.write(0);
  b.emit("", [=](const Pointers& p) {
    auto* sums = p.at<double>(work);
    double squares = 0;
    for (const auto& [id, count] : tensors) {
      parallel(partsOf(count), 1, [&, x = p.at(id), size = count](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) sums[i] = squaresOf(x + i * part, std::min(part, size - i * part));
      });
      for (int64_t i = 0; i < partsOf(count); ++i) squares += sums[i];
    }
    *p.at(norm) = static_cast<float>(std::sqrt(squares));
  });
}

// Any number of tensors and a factor -> each times the factor
void scale(Builder& b) {
  const size_t count = ops::Scale(b).count;
  const Tensors tensors = readAll(b, count);
  const BufferId by = b.read(count);
  const std::vector<BufferId> results = writeAll(b);
  b.emit("", [=](const Pointers& p) {
    const float factor = *p.at(by);
    for (size_t t = 0; t < tensors.size(); ++t)
      parallel(tensors[t].second, 16384, [&, x = p.at(tensors[t].first), y = p.at(results[t])](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) y[i] = x[i] * factor;
      });
  });
}

// Any number of tensors, as many others of their shapes and a weight -> x + weight * (other - x) for each
void lerp(Builder& b) {
  const size_t count = ops::Lerp(b).count;
  const Tensors tensors = readAll(b, count);
  const Tensors others = readAll(b, count, count);
  const BufferId by = b.read(2 * count);
  const std::vector<BufferId> results = writeAll(b);
  b.emit("", [=](const Pointers& p) {
    const float weight = *p.at(by);
    for (size_t t = 0; t < count; ++t) {
      const float* x = p.at(tensors[t].first);
      const float* other = p.at(others[t].first);
      parallel(tensors[t].second, 16384, [=, y = p.at(results[t])](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) y[i] = x[i] + weight * (other[i] - x[i]);
      });
    }
  });
}

}  // namespace seresnet::cpu
