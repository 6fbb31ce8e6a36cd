#include "check.h"
#include "cuda/kernels/batch_norm_act.h"
#include "cuda/kernels/bias_act.h"
#include "cuda/kernels/global_pool.h"
#include "cuda/kernels/layout.h"
#include "cuda/kernels/pool2d.h"

#include <cstring>

// Kernels of channels-last images.
namespace test {

using namespace seresnet::cuda;

namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }
Vector in(const Array& a) { return {a.data(), a.dtype()}; }
VectorOut out(const Array& a) { return {a.data(), a.dtype()}; }

void batchNorm(DType dtype, int64_t rows, int64_t channels, double offset) {
  const int64_t size = rows * channels;
  const double eps = 1e-5, count = static_cast<double>(rows);
  const Array x(dtype, normal(size, 1, offset)), residual(dtype, normal(size, 2)), dy(dtype, normal(size, 3));
  const Array gamma(DType::float32, normal(channels, 4, 1, 0.3)), beta(DType::float16, normal(channels, 5));
  Values mean(at(channels)), variance(at(channels));
  for (int64_t i = 0; i < size; ++i) mean[at(i % channels)] += x[i] / count;
  for (int64_t i = 0; i < size; ++i) variance[at(i % channels)] += std::pow(x[i] - mean[at(i % channels)], 2) / count;

  const Array oldMean(DType::float32, normal(channels, 6)), oldVariance(DType::float32, normal(channels, 7, 2, 0.1));
  Values y, runningMean, runningVariance;
  const auto normalised = [&](int64_t i, double m, double v) {
    const int64_t c = i % channels;
    return std::max((x[i] - m) / std::sqrt(v + eps) * gamma[c] + beta[c] + residual[i], 0.0);
  };
  for (int64_t i = 0; i < size; ++i) y.push_back(normalised(i, mean[at(i % channels)], variance[at(i % channels)]));
  for (int64_t c = 0; c < channels; ++c) {
    runningMean.push_back(0.8 * oldMean[c] + 0.2 * mean[at(c)]);
    runningVariance.push_back(0.8 * oldVariance[c] + 0.2 * variance[at(c)] * count / (count - 1));
  }
  Array ys(dtype, size), means(DType::float32, channels), variances(DType::float32, channels);
  Array newMean(DType::float32, channels), newVariance(DType::float32, channels);
  const Array workspace(DType::uint8, static_cast<int64_t>(batchNormWorkspace(rows, channels)));
  check("batch_norm_train", {{ys, y}, {means, mean}, {variances, variance}}, [&] {
    launchBatchNormTrain(nullptr, {x.data(), residual.data(), ys.data(), dtype, rows, channels, in(gamma), in(beta),
                                   out(means), out(variances), eps, true, workspace.data()});
  });
  const Array momentum(DType::float32, Values{0.2}), batchMean(DType::float32, mean), batchVariance(DType::float32, variance);
  check("running_statistics", {{newMean, runningMean}, {newVariance, runningVariance}}, [&] {
    launchRunningStatistics(nullptr, {in(oldMean), in(oldVariance), in(batchMean), in(batchVariance), out(newMean),
                                      out(newVariance), channels, momentum.as<float>(), count});
  });

  Values inference;
  for (int64_t i = 0; i < size; ++i) inference.push_back(normalised(i, oldMean[i % channels], oldVariance[i % channels]));
  check("batch_norm", {{ys, inference}}, [&] {
    launchBatchNorm(nullptr, {x.data(), residual.data(), ys.data(), dtype, rows, channels, in(oldMean), in(oldVariance),
                              in(gamma), in(beta), eps, true});
  });

  const Array exactMean(DType::float32, mean), exactVariance(DType::float32, variance), mask(dtype, normal(size, 8));
  for (const bool training : {true, false}) {
    Values dgamma(at(channels)), dbeta(at(channels)), dx, masked;
    double terms = 0;  // dx is a small difference where there are few rows
    const auto inverse = [&](int64_t c) { return 1 / std::sqrt(exactVariance[c] + eps); };
    for (int64_t i = 0; i < size; ++i) {
      const int64_t c = i % channels;
      masked.push_back(training && !(mask[i] > 0) ? 0 : dy[i]);
      dbeta[at(c)] += masked[at(i)];
      dgamma[at(c)] += masked[at(i)] * (x[i] - exactMean[c]) * inverse(c);
    }
    for (int64_t i = 0; i < size; ++i) {
      const int64_t c = i % channels;
      const double centred = training ? dbeta[at(c)] / count + (x[i] - exactMean[c]) * inverse(c) * dgamma[at(c)] / count : 0;
      dx.push_back(gamma[c] * inverse(c) * (masked[at(i)] - centred));
      terms = std::max(terms, std::abs(gamma[c] * inverse(c) * masked[at(i)]));
    }
    Array dxs(dtype, size), kept(dtype, size), dgammas(DType::float32, channels), dbetas(DType::float32, channels);
    const auto run = [&](bool keep) {
      launchBatchNormGradient(nullptr, {x.data(), dy.data(), training ? mask.data() : nullptr, dxs.data(),
                                        keep ? kept.data() : nullptr, dtype, rows, channels, in(exactMean),
                                        in(exactVariance), in(gamma), out(dgammas), out(dbetas), eps, training,
                                        workspace.data()});
    };
    check("batch_norm_gradient", {{dxs, dx, terms}, {kept, masked}, {dgammas, dgamma}, {dbetas, dbeta}}, [&] { run(true); });
    check("batch_norm_gradient", {{dxs, dx, terms}, {dgammas, dgamma}, {dbetas, dbeta}}, [&] { run(false); });
  }
}

// Without gamma, beta and residual, in place.
void batchNormInPlace(DType dtype, int64_t rows, int64_t channels) {
  const int64_t size = rows * channels;
  const Array x(dtype, normal(size, 1)), mean(DType::bfloat16, normal(channels, 2)), variance(dtype, normal(channels, 3, 2, 0.1));
  Values y;
  for (int64_t i = 0; i < size; ++i) y.push_back((x[i] - mean[i % channels]) / std::sqrt(variance[i % channels] + 0.1));
  Array ys(dtype, size);
  check("batch_norm in place", {{ys, y}}, [&] {
    std::memcpy(ys.data(), x.data(), x.bytes());
    launchBatchNorm(nullptr, {ys.data(), nullptr, ys.data(), dtype, rows, channels, in(mean), in(variance), {}, {}, 0.1, false});
  });
}

void foldBatchNorm(DType dtype, int64_t outputs, int64_t fan) {
  const Array weight(dtype, normal(outputs * fan, 1)), bias(dtype, normal(outputs, 2)), mean(dtype, normal(outputs, 3));
  const Array variance(DType::float32, normal(outputs, 4, 2, 0.2)), gamma(dtype, normal(outputs, 5)), beta(dtype, normal(outputs, 6));
  Values weights, biases;
  const auto scale = [&](int64_t o) { return gamma[o] / std::sqrt(variance[o] + 1e-3); };
  for (int64_t i = 0; i < outputs * fan; ++i) weights.push_back(weight[i] * scale(i / fan));
  for (int64_t o = 0; o < outputs; ++o) biases.push_back((bias[o] - mean[o]) * scale(o) + beta[o]);
  Array newWeight(dtype, outputs * fan), newBias(DType::float32, outputs);
  check("fold_batch_norm", {{newWeight, weights}, {newBias, biases}}, [&] {
    launchFoldBatchNorm(nullptr, {weight.data(), newWeight.data(), dtype, outputs, fan, in(bias), in(mean), in(variance),
                                  in(gamma), in(beta), out(newBias), 1e-3});
  });
}

void biasAct(DType dtype, int64_t images, int64_t plane, int64_t channels, bool gated, bool residual, bool relu) {
  const int64_t size = images * plane * channels;
  const Array x(dtype, normal(size, 1)), other(dtype, normal(size, 2)), bias(dtype, normal(channels, 3));
  const Array gate(dtype, normal(images * channels, 4));
  Values y;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t c = i % channels;
    const double scale = gated ? gate[i / (plane * channels) * channels + c] : 1;
    const double value = x[i] * scale + bias[c] + (residual ? other[i] : 0);
    y.push_back(relu ? std::max(value, 0.0) : value);
  }
  Array ys(dtype, size);
  check("bias_act", {{ys, y}}, [&] {
    launchBiasAct(nullptr, {x.data(), gated ? gate.data() : nullptr, residual ? other.data() : nullptr, ys.data(), dtype,
                            images, plane, channels, in(bias), relu});
  });
}

void globalPool(DType dtype, const Images& images) {
  const Array x(dtype, normal(images.size(), 1));
  Values y(at(images.batch * images.channels));
  for (int64_t i = 0; i < images.size(); ++i)
    y[at(i / (images.plane() * images.channels) * images.channels + i % images.channels)] += x[i];
  for (const bool sum : {true, false}) {
    if (!sum) for (double& value : y) value /= static_cast<double>(images.plane());
    Array ys(dtype, images.batch * images.channels);
    check("global_pool", {{ys, y}}, [&] { launchGlobalPool(nullptr, {x.data(), ys.data(), dtype, images, sum}); });
  }
}

struct Pool {
  Images images;
  int64_t kernel, stride, padding, dilation;
  bool ceil, padCounts;
};

int64_t extentOf(const Pool& p, int64_t extent) {
  const int64_t free = extent + 2 * p.padding - p.dilation * (p.kernel - 1) - 1;
  const int64_t whole = (p.ceil ? (free + p.stride - 1) / p.stride : free / p.stride) + 1;
  return p.ceil && (whole - 1) * p.stride >= extent + p.padding ? whole - 1 : whole;
}

void pool2d(DType dtype, const Pool& p, bool ties) {
  const auto& [batch, height, width, channels] = p.images;
  const int64_t outHeight = extentOf(p, height), outWidth = extentOf(p, width);
  const int64_t outputs = batch * outHeight * outWidth * channels;
  Values values = normal(p.images.size(), 1);
  if (ties) for (double& value : values) value = std::round(value);
  values[values.size() / 2] = NAN;
  const Array x(dtype, values), clean(dtype, normal(p.images.size(), 2)), dy(dtype, normal(outputs, 3));
  Values largest, mean, dmax(at(p.images.size())), dmean(at(p.images.size()));
  for (int64_t o = 0; o < outputs; ++o) {
    const int64_t c = o % channels, column = o / channels % outWidth, row = o / channels / outWidth % outHeight;
    const int64_t n = o / channels / outWidth / outHeight;
    int64_t best = -1;
    double sum = 0;
    std::vector<int64_t> inside;
    for (int64_t i = 0; i < p.kernel; ++i)
      for (int64_t j = 0; j < p.kernel; ++j) {
        const int64_t h = row * p.stride - p.padding + i * p.dilation, w = column * p.stride - p.padding + j * p.dilation;
        if (h < 0 || h >= height || w < 0 || w >= width) continue;
        const int64_t place = ((n * height + h) * width + w) * channels + c;
        inside.push_back(place);
        sum += clean[place];
        if (best < 0 || x[place] > x[best] || (std::isnan(x[place]) && !std::isnan(x[best]))) best = place;
      }
    largest.push_back(best < 0 ? -INFINITY : x[best]);
    if (best >= 0) dmax[at(best)] += dy[o];
    const auto reach = [&](int64_t place, int64_t extent) {
      const int64_t from = place * p.stride - p.padding;
      return std::min(from + p.kernel, extent + p.padding) - from;
    };
    const double divisor = static_cast<double>(p.padCounts ? reach(row, height) * reach(column, width)
                                                           : static_cast<int64_t>(inside.size()));
    mean.push_back(sum / divisor);
    for (const int64_t place : inside) dmean[at(place)] += dy[o] / divisor;
  }
  Array y(dtype, outputs), dx(dtype, p.images.size());
  Pool2dArguments a{x.data(), y.data(), dtype, p.images, outHeight, outWidth, {p.kernel, p.kernel}, {p.stride, p.stride},
                    {p.padding, p.padding}, {p.dilation, p.dilation}, p.padCounts};
  check("max_pool2d", {{y, largest}}, [&] { launchMaxPool2d(nullptr, a); });
  check("max_pool2d_gradient", {{dx, dmax}}, [&] { launchMaxPool2dGradient(nullptr, {a, dy.data(), dx.data()}); });
  if (p.dilation != 1) return;
  a.x = clean.data();
  check("avg_pool2d", {{y, mean}}, [&] { launchAvgPool2d(nullptr, a); });
  check("avg_pool2d_gradient", {{dx, dmean}}, [&] { launchAvgPool2dGradient(nullptr, {a, dy.data(), dx.data()}); });
}

void layout(DType from, DType to, const Images& images, int64_t padded) {
  const int64_t channels = images.channels, plane = images.plane();
  Values values = normal(images.size(), 1, 100, 30);
  if (from == DType::uint8) for (double& value : values) value = std::clamp(std::round(value), 0.0, 255.0);
  const Array x(from, values), scale(DType::float32, normal(channels, 2)), shift(DType::float32, normal(channels, 3));
  for (const bool last : {false, true}) {
    Values y;
    for (int64_t n = 0; n < images.batch; ++n)
      for (int64_t i = 0; i < plane; ++i)
        for (int64_t c = 0; c < padded; ++c) {
          const int64_t place = last ? (n * plane + i) * channels + c : (n * channels + c) * plane + i;
          y.push_back(c < channels ? x[place] * scale[c] + shift[c] : 0);
        }
    Array ys(to, images.rows() * padded);
    check("to_channels_last", {{ys, y}}, [&] {
      launchToChannelsLast(nullptr, {x.data(), from, last, ys.data(), to, images, padded, in(scale), in(shift)});
    });
    if (last || from == DType::uint8) continue;
    Values back;
    for (int64_t n = 0; n < images.batch; ++n)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < plane; ++i) back.push_back(ys[(n * plane + i) * padded + c]);
    Array backs(from, images.size());
    check("to_channels_first", {{backs, back}},
          [&] { launchToChannelsFirst(nullptr, {ys.data(), to, padded, backs.data(), from, images}); });
  }
}

}  // namespace

void imageKernels() {
  for (const DType dtype : floats) {
    batchNorm(dtype, 2, 1, 0);
    batchNorm(dtype, 37, 13, 3);
    batchNorm(dtype, 300, 24, 0);
    batchNormInPlace(dtype, 1, 1);
    batchNormInPlace(dtype, 1, 72);
    batchNormInPlace(dtype, 49, 17);
    biasAct(dtype, 1, 1, 1, false, false, false);
    biasAct(dtype, 2, 15, 13, true, true, true);
    biasAct(dtype, 3, 49, 64, true, false, true);
    biasAct(dtype, 2, 30, 40, false, true, false);
    globalPool(dtype, {1, 1, 1, 1});
    globalPool(dtype, {3, 1, 1, 13});
    globalPool(dtype, {2, 7, 5, 40});
    foldBatchNorm(dtype, 5, 27);
    foldBatchNorm(dtype, 1, 1);
    for (const bool ties : {false, true}) {
      pool2d(dtype, {{1, 1, 1, 3}, 1, 1, 0, 1, false, true}, ties);
      pool2d(dtype, {{2, 7, 6, 16}, 3, 2, 1, 1, false, true}, ties);
      pool2d(dtype, {{1, 6, 7, 5}, 3, 2, 0, 1, true, true}, ties);
      pool2d(dtype, {{1, 5, 6, 9}, 3, 2, 1, 1, true, false}, ties);
      pool2d(dtype, {{1, 9, 8, 8}, 3, 1, 1, 2, false, true}, ties);
    }
    layout(DType::uint8, dtype, {2, 5, 7, 3}, 4);
    layout(dtype, DType::float32, {1, 1, 1, 5}, 5);
    layout(DType::float32, dtype, {1, 1, 1, 1}, 8);
    layout(DType::float32, dtype, {2, 6, 7, 37}, 40);
  }
  batchNorm(DType::float32, 49, 2048, 100);
  globalPool(DType::float16, {1, 7, 7, 2048});
  biasAct(DType::float16, 1, 49, 2048, true, true, true);
  pool2d(DType::float16, {{1, 7, 7, 2048}, 3, 2, 1, 1, false, true}, false);
  layout(DType::float32, DType::float16, {1, 7, 7, 2048}, 2048);
}

}  // namespace test
