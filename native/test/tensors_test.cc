#include "check.h"
#include "cuda/kernels/copy.h"
#include "cuda/kernels/cross_entropy.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/reduce.h"
#include "cuda/kernels/softmax.h"
#include "cuda/kernels/trial.h"
#include "cuda/kernels/update.h"

#include <limits>
#include <utility>

// Kernels that know no images.
namespace test {

using namespace seresnet::cuda;

namespace {

using Dims = std::vector<int64_t>;

size_t at(int64_t i) { return static_cast<size_t>(i); }

Walk walkOf(const Dims& shape, const std::vector<Dims>& strides) {
  Walk walk;
  walk.rank = static_cast<int>(shape.size());
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    walk.shape[dim] = shape[dim];
    for (size_t a = 0; a < strides.size(); ++a) walk.strides[a][dim] = strides[a][dim];
  }
  return walk;
}

int64_t place(const Walk& walk, int array, int64_t index) {
  int64_t result = 0;
  for (int dim = walk.rank - 1; dim >= 0; --dim) {
    result += index % walk.shape[dim] * walk.strides[array][dim];
    index /= walk.shape[dim];
  }
  return result;
}

void unary(DType dtype, int64_t count) {
  Values values = normal(count, 1);
  const auto functions = std::vector<std::pair<Unary, double (*)(double)>>{
      {Unary::relu, [](double x) { return x < 0 ? 0 : x; }},
      {Unary::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {Unary::sqrt, [](double x) { return std::sqrt(x); }},
      {Unary::exp, [](double x) { return std::exp(x); }},
      {Unary::log, [](double x) { return std::log(x); }},
      {Unary::neg, [](double x) { return -x; }}};
  values.back() = NAN;
  const Array x(dtype, values), dy(dtype, normal(count, 2));
  for (const auto& [op, function] : functions) {
    Values y;
    for (int64_t i = 0; i < count; ++i) y.push_back(function(x[i]));
    Array ys(dtype, count);
    check("unary", {{ys, y}}, [&, op = op] { launchUnary(nullptr, {op, x.data(), ys.data(), dtype, count}); });
  }
  Values relu, sigmoid;
  const Array activated(dtype, normal(count, 3));
  for (int64_t i = 0; i < count; ++i) {
    const double v = activated[i];
    relu.push_back(v > 0 ? dy[i] : 0);
    sigmoid.push_back(dy[i] * v * (1 - v));
  }
  Array dx(dtype, count), filled(dtype, count);
  for (const Unary op : {Unary::relu, Unary::sigmoid})
    check("activation_gradient", {{dx, op == Unary::relu ? relu : sigmoid}}, [&] {
      launchActivationGradient(nullptr, {op, activated.data(), dy.data(), dx.data(), dtype, count});
    });
  check("fill", {{filled, Values(at(count), -1.5)}}, [&] { launchFill(nullptr, {filled.data(), dtype, count, -1.5}); });
  // a misaligned view: no 16-byte accesses
  if (count < 2) return;
  Array part(dtype, count);
  Values negated{0};
  for (int64_t i = 1; i < count; ++i) negated.push_back(-dy[i]);
  const int64_t width = static_cast<int64_t>(bytesOf(dtype));
  check("unary, misaligned", {{part, negated}}, [&] {
    part.set(0, 0);
    launchUnary(nullptr, {Unary::neg, dy.as<char>() + width, part.as<char>() + width, dtype, count - 1});
  });
}

void binary(DType dtype, const Walk& walk, int64_t sizeA, int64_t sizeB) {
  Values left = normal(sizeA, 1, 3, 2), right = normal(sizeB, 2, 5, 1);
  if (!seresnet::isFloat(dtype))
    for (Values* values : {&left, &right}) for (double& value : *values) value = std::clamp(std::round(value), 0.0, 9.0);
  const Array a(dtype, left), b(dtype, right);
  for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div}) {
    if (op == Binary::div && !seresnet::isFloat(dtype)) continue;
    Values y;
    for (int64_t i = 0; i < walk.size(); ++i) {
      const double p = a[place(walk, 0, i)], q = b[place(walk, 1, i)];
      const double value = op == Binary::add ? p + q : op == Binary::sub ? p - q : op == Binary::mul ? p * q : p / q;
      y.push_back(dtype == DType::uint8 && value < 0 ? value + 256 : value);
    }
    Array ys(dtype, walk.size());
    check("binary", {{ys, y}}, [&] { launchBinary(nullptr, {op, a.data(), b.data(), ys.data(), dtype, walk}); });
  }
  if (!seresnet::isFloat(dtype)) return;
  Values repeated;
  Walk second = walk;
  for (int dim = 0; dim < walk.rank; ++dim) second.strides[0][dim] = walk.strides[1][dim];
  for (int64_t i = 0; i < walk.size(); ++i) repeated.push_back(0.5 * b[place(walk, 1, i)]);
  Array ys(dtype, walk.size());
  check("broadcast", {{ys, repeated}}, [&] { launchBroadcast(nullptr, {b.data(), ys.data(), dtype, second, 0.5}); });
}

void cast(DType from, DType to, const Values& values, const Values& expected) {
  const Array x(from, values);
  Array y(to, x.size());
  check(std::string("cast ") + seresnet::nameOf(from) + " to " + seresnet::nameOf(to), {{y, expected}},
        [&] { launchCast(nullptr, {x.data(), from, y.data(), to, x.size()}); });
}

void reduce(DType dtype, const Walk& kept, const Walk& reduced) {
  Values values = normal(kept.size() * reduced.size(), 1, 2, 3);
  if (!seresnet::isFloat(dtype)) for (double& value : values) value = std::round(dtype == DType::uint8 ? std::abs(value) : value);
  const Array x(dtype, values);
  for (const bool mean : {false, true}) {
    if (mean && !seresnet::isFloat(dtype)) continue;
    Values y;
    for (int64_t i = 0; i < kept.size(); ++i) {
      double sum = 0;
      for (int64_t k = 0; k < reduced.size(); ++k) sum += x[place(kept, 0, i) + place(reduced, 0, k)];
      y.push_back(mean ? sum / static_cast<double>(reduced.size()) : dtype == DType::uint8 ? std::fmod(sum, 256) : sum);
    }
    Array ys(dtype, kept.size());
    check("reduce", {{ys, y}}, [&] { launchReduce(nullptr, {x.data(), ys.data(), dtype, kept, reduced, mean}); });
  }
}

void softmax(DType dtype, int64_t outer, int64_t extent, int64_t inner) {
  const Array x(dtype, normal(outer * extent * inner, 1, 50, 4));
  for (const bool logarithm : {false, true}) {
    Values y(at(x.size()));
    for (int64_t line = 0; line < outer * inner; ++line) {
      const auto index = [&](int64_t k) { return (line / inner * extent + k) * inner + line % inner; };
      double largest = -INFINITY, sum = 0;
      for (int64_t k = 0; k < extent; ++k) largest = std::max(largest, x[index(k)]);
      for (int64_t k = 0; k < extent; ++k) sum += std::exp(x[index(k)] - largest);
      for (int64_t k = 0; k < extent; ++k) {
        const double shifted = x[index(k)] - largest;
        y[at(index(k))] = logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
      }
    }
    Array ys(dtype, x.size());
    check("softmax", {{ys, y}}, [&] { launchSoftmax(nullptr, {x.data(), ys.data(), dtype, outer, extent, inner, logarithm}); });
  }
}

void crossEntropy(DType dtype, DType targetType, int64_t batch, int64_t classes, double smoothing) {
  const Array x(dtype, normal(batch * classes, 1, 0, 3)), dloss(DType::float32, normal(batch, 2));
  Values labels;
  for (int64_t n = 0; n < batch; ++n) labels.push_back(static_cast<double>(n * 7 % classes));
  const Array targets(targetType, labels), workspace(DType::float32, batch);
  for (const Reduction reduction : {Reduction::none, Reduction::sum, Reduction::mean}) {
    const bool none = reduction == Reduction::none;
    const double divisor = reduction == Reduction::mean ? static_cast<double>(batch) : 1;
    Values losses, gradient;
    for (int64_t n = 0; n < batch; ++n) {
      double sum = 0, total = 0;
      for (int64_t c = 0; c < classes; ++c) {
        sum += std::exp(x[n * classes + c]);
        total += x[n * classes + c];
      }
      const double hit = std::log(sum) - x[n * classes + static_cast<int64_t>(labels[at(n)])];
      losses.push_back((1 - smoothing) * hit + smoothing * (std::log(sum) - total / static_cast<double>(classes)));
      for (int64_t c = 0; c < classes; ++c) {
        const double wanted = smoothing / static_cast<double>(classes) + (static_cast<double>(c) == labels[at(n)] ? 1 - smoothing : 0);
        gradient.push_back(dloss[none ? n : 0] / divisor * (std::exp(x[n * classes + c]) / sum - wanted));
      }
    }
    double total = 0;
    for (const double loss : losses) total += loss;
    Array loss(DType::float32, none ? batch : 1), dx(dtype, x.size()), invalid(DType::int32, 1);
    check("cross_entropy", {{loss, none ? losses : Values{total / divisor}}, {invalid, {0}}}, [&] {
      invalid.set(0, 0);
      launchCrossEntropy(nullptr, {x.data(), dtype, targets.data(), targetType, loss.data(), DType::float32, batch, classes,
                                   smoothing, reduction, invalid.as<int32_t>(), workspace.data()});
    });
    check("cross_entropy_gradient", {{dx, gradient}}, [&] {
      launchCrossEntropyGradient(nullptr, {x.data(), dx.data(), dtype, targets.data(), targetType,
                                           {dloss.data(), DType::float32}, batch, classes, smoothing, reduction});
    });
  }
  Values bad = labels;
  bad[at(batch / 2)] = static_cast<double>(classes);
  bad.back() = -1;
  const Array badTargets(targetType, bad);
  Array loss(DType::float32, 1), invalid(DType::int32, 1);
  check("cross_entropy, bad targets", {{loss, {NAN}}, {invalid, {static_cast<double>(batch - batch / 2)}}}, [&] {
    invalid.set(0, 0);
    launchCrossEntropy(nullptr, {x.data(), dtype, badTargets.data(), targetType, loss.data(), DType::float32, batch, classes,
                                 smoothing, Reduction::mean, invalid.as<int32_t>(), workspace.data()});
  });
}

void copy(DType dtype, const Walk& walk, int64_t from, int64_t to) {
  Values values(at(from));
  for (int64_t i = 0; i < from; ++i) values[at(i)] = static_cast<double>(i % 100);
  const Array x(dtype, values);
  Values expected(at(to));
  for (int64_t i = 0; i < walk.size(); ++i) expected[at(place(walk, 1, i))] = x[place(walk, 0, i)];
  Array y(dtype, to);
  check("copy", {{y, expected}}, [&] {
    std::memset(y.data(), 0, y.bytes());
    launchCopy(nullptr, {x.data(), y.data(), static_cast<int>(bytesOf(dtype)), walk});
  });
}

void updates(DType gradientType) {
  const int64_t sizes[] = {1, 4099, 7};
  std::vector<std::unique_ptr<Array>> arrays;
  const auto array = [&](DType dtype, const Values& values) { return arrays.emplace_back(std::make_unique<Array>(dtype, values)).get(); };
  struct Set {
    Array *parameter, *gradient, *first, *second, *newParameter, *newFirst, *newSecond, *scaled;
    Values expected[3];
  };
  std::vector<Set> sets;
  const Array tensors(DType::uint8, static_cast<int64_t>(3 * sizeof(UpdateTensor)));
  double squares = 0;
  for (const int64_t size : sizes) {
    const auto seed = static_cast<unsigned>(size);
    Values second = normal(size, seed + 3);
    for (double& value : second) value = std::abs(value);
    const Values zeros(at(size));
    Set set{array(DType::float32, normal(size, seed)), array(gradientType, normal(size, seed + 1)), array(DType::float32, normal(size, seed + 2)),
            array(DType::float32, second), array(DType::float32, zeros), array(DType::float32, zeros), array(DType::float32, zeros), array(gradientType, zeros), {}};
    for (int64_t i = 0; i < size; ++i) squares += std::pow((*set.gradient)[i], 2);
    tensors.as<UpdateTensor>()[sets.size()] = {set.parameter->as<float>(), set.gradient->data(),
        {set.first->as<float>(), set.second->as<float>()}, set.newParameter->as<float>(),
        {set.newFirst->as<float>(), set.newSecond->as<float>()}, set.scaled->data(), size};
    sets.push_back(set);
  }
  const Array settings(DType::float32, Values{0.1, 0.9, 0.999, 1e-3, 0.01, 3, 0.5});
  const float* s = settings.as<float>();
  const UpdateArguments update{tensors.as<UpdateTensor>(), 3, 4099, gradientType};
  const double lr = settings[0], beta1 = settings[1], beta2 = settings[2], eps = settings[3], decay = settings[4];
  for (const int kind : {0, 1, 2}) {  // SGD, SGD with Nesterov's momentum, AdamW
    for (Set& set : sets) {
      for (Values& values : set.expected) values.clear();
      for (int64_t i = 0; i < set.parameter->size(); ++i) {
        const double p = (*set.parameter)[i], m0 = (*set.first)[i], v0 = (*set.second)[i];
        const double g = (*set.gradient)[i] + (kind < 2 ? decay * p : 0);
        const double m = kind < 2 ? beta1 * m0 + g : beta1 * m0 + (1 - beta1) * g;
        const double v = beta2 * v0 + (1 - beta2) * g * g;
        const double adam = lr / (1 - std::pow(beta1, 3)) * m / (std::sqrt(v / (1 - std::pow(beta2, 3))) + eps);
        set.expected[0].push_back(kind == 2 ? p * (1 - lr * decay) - adam : p - lr * (kind == 1 ? g + beta1 * m : m));
        set.expected[1].push_back(m);
        set.expected[2].push_back(v);
      }
    }
    const auto step = [&] {
      if (kind == 2) return launchAdamw(nullptr, {update, s, s + 1, s + 2, s + 3, s + 4, s + 5});
      launchSgd(nullptr, {update, s, s + 1, s + 4, kind == 1});
    };
    for (Set& set : sets) {
      if (kind == 2)
        check("adamw", {{*set.newParameter, set.expected[0]}, {*set.newFirst, set.expected[1]}, {*set.newSecond, set.expected[2]}}, step);
      else check("sgd", {{*set.newParameter, set.expected[0]}, {*set.newFirst, set.expected[1]}}, step);
    }
  }
  UpdateArguments skipped = update;
  skipped.skip = s + 6;
  for (Set& set : sets) {
    check("sgd", {{*set.newParameter, set.parameter->values()}, {*set.newFirst, set.first->values()}},
          [&] { launchSgd(nullptr, {skipped, s, s + 1, s + 4, false}); });
    check("adamw", {{*set.newParameter, set.parameter->values()}, {*set.newFirst, set.first->values()}, {*set.newSecond, set.second->values()}},
          [&] { launchAdamw(nullptr, {skipped, s, s + 1, s + 2, s + 3, s + 4, s + 5}); });
  }
  Array found(DType::float32, 1);
  check("found_inf", {{found, {0}}}, [&] { launchFoundInf(nullptr, {update, found.as<float>()}); });
  for (const double wrong : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    Values gradient = normal(4099, 5);
    gradient[4097] = wrong;
    const Array last(gradientType, gradient);
    UpdateTensor& tensor = tensors.as<UpdateTensor>()[1];
    const UpdateTensor before = std::exchange(tensor, UpdateTensor{nullptr, last.data(), {}, nullptr, {}, nullptr, 4099});
    check("found_inf", {{found, {1}}}, [&] { launchFoundInf(nullptr, {update, found.as<float>()}); });
    tensor = before;
  }
  Array norm(DType::float32, 1);
  const Array workspace(DType::uint8, static_cast<int64_t>(globalNormWorkspace(3, 4099)));
  check("global_norm", {{norm, {std::sqrt(squares)}}},
        [&] { launchGlobalNorm(nullptr, {update, norm.as<float>(), workspace.data()}); });
  for (Set& set : sets) {
    Values scaled = set.gradient->values();
    for (double& value : scaled) value *= settings[6];
    check("scale", {{*set.scaled, scaled}}, [&] { launchScale(nullptr, {update, s + 6}); });
    Values mixed = set.parameter->values();
    for (size_t i = 0; i < mixed.size(); ++i) mixed[i] += settings[0] * ((*set.gradient)[static_cast<int64_t>(i)] - mixed[i]);
    check("lerp", {{*set.newParameter, mixed}}, [&] { launchLerp(nullptr, {update, s}); });
  }
}

// Noise for trials, and how far it is from something else.
void trial(DType dtype, int64_t count) {
  Values noise;
  double apart = 0, norm = 0;
  const Array other(dtype, normal(count, 4));
  for (int64_t i = 0; i < count; ++i) {
    noise.push_back(double{noiseAt(7, i)});
    apart += (other[i] - noise.back()) * (other[i] - noise.back());
    norm += noise.back() * noise.back();
  }
  Array made(dtype, count);
  check("noise", {{made, noise}}, [&] { launchNoise(nullptr, {made.data(), dtype, count, 7}); });
  const int64_t parts = differenceParts(count);
  Array sums(DType::float32, 2 * parts), totals(DType::float32, 2);
  check("difference", {{totals, {apart, norm}}}, [&] {
    launchDifference(nullptr, {other.data(), made.data(), dtype, count, sums.as<float>()});
    for (int64_t which = 0; which < 2; ++which) {
      double total = 0;
      for (int64_t part = 0; part < parts; ++part) total += sums[2 * part + which];
      totals.set(which, total);
    }
  });
}

}  // namespace

void tensorKernels() {
  for (const DType dtype : floats) {
    for (const int64_t count : {1, 37, 1000}) unary(dtype, count);
    for (const int64_t count : {1, 100, 5000}) trial(dtype, count);
    softmax(dtype, 1, 1, 1);
    softmax(dtype, 5, 100, 1);
    softmax(dtype, 2, 7, 3);
    crossEntropy(dtype, DType::int64, 1, 2, 0);
    crossEntropy(dtype, DType::int64, 9, 10, 0);
    crossEntropy(dtype, DType::int32, 2, 101, 0.1);
  }
  for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16, DType::int32, DType::int64, DType::uint8}) {
    binary(dtype, walkOf({5, 7}, {{7, 1}, {7, 1}}), 35, 35);
    binary(dtype, walkOf({1}, {{1}, {1}}), 1, 1);
    binary(dtype, walkOf({2, 3, 16}, {{48, 16, 1}, {16, 0, 1}}), 96, 32);
    binary(dtype, walkOf({2, 3, 16}, {{48, 16, 1}, {0, 0, 0}}), 96, 1);
    binary(dtype, walkOf({3, 4, 5}, {{0, 5, 1}, {1, 0, 3}}), 20, 15);
    copy(dtype, walkOf({4, 5}, {{1, 4}, {5, 1}}), 20, 20);               // transposed
    copy(dtype, walkOf({2, 3, 16}, {{48, 16, 1}, {96, 32, 1}}), 96, 192);  // padded
    copy(dtype, walkOf({3, 2}, {{10, 3}, {2, 1}}), 30, 6);               // every third
  }
  for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16, DType::int32, DType::int64, DType::uint8}) {
    reduce(dtype, walkOf({1}, {{1}}), walkOf({1}, {{1}}));
    reduce(dtype, walkOf({}, {{}}), walkOf({3000}, {{1}}));
    reduce(dtype, walkOf({7}, {{33}}), walkOf({33}, {{1}}));
    reduce(dtype, walkOf({70}, {{1}}), walkOf({11}, {{70}}));
    reduce(dtype, walkOf({3, 5}, {{20, 1}}), walkOf({4}, {{5}}));
    reduce(dtype, walkOf({300}, {{2}}), walkOf({2}, {{1}}));
  }
  updates(DType::float32);
  updates(DType::float16);
  updates(DType::bfloat16);
  const Values numbers{0, 1, 2, 100, 7, 3, 55, 99, 12};
  for (const DType from : {DType::float32, DType::float16, DType::bfloat16, DType::int32, DType::int64, DType::uint8})
    for (const DType to : {DType::float32, DType::float16, DType::bfloat16, DType::int32, DType::int64, DType::uint8})
      cast(from, to, numbers, numbers);
  cast(DType::float32, DType::int32, {-1.9, 2.9, NAN, INFINITY, -INFINITY, 4294968320.0, -2147483904.0, 1e30},
       {-1, 2, 0, 0, 0, 1024, 2147483392.0, 0});
  cast(DType::float32, DType::uint8, {-1, 256.5, 511}, {255, 0, 255});
  cast(DType::int64, DType::int32, {-1, 4294967297.0}, {-1, 1});
}

}  // namespace test
