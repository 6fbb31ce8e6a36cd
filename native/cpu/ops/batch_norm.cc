#include <cmath>
#include <vector>

#include "cpu/loops/channels.h"
#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "ops.h"
#include "ops/batch_norm.h"

namespace seresnet::cpu {

namespace {

SERESNET_CLONES void applyRow(const float* x, const float* mean, const float* scale, const float* shift,
                              const float* residual, bool relu, float* y, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    float value = (x[c] - mean[c]) * scale[c] + shift[c];
    if (residual != nullptr) value += residual[c];
    y[c] = relu && value < 0 ? 0 : value;
  }
}

SERESNET_CLONES void applyPlane(const float* x, float mean, float scale, float shift, const float* residual, bool relu,
                                float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float value = (x[i] - mean) * scale + shift;
    if (residual != nullptr) value += residual[i];
    y[i] = relu && value < 0 ? 0 : value;
  }
}

// y = (x - mean) * scale + shift (+ residual) (+ ReLU)
void apply(const View& v, const float* x, const float* mean, const float* scale, const float* shift,
           const float* residual, bool relu, float* y) {
  const auto at = [&](int64_t i) { return residual == nullptr ? nullptr : residual + i; };
  if (v.inner == 1) {
    parallel(v.outer, std::max<int64_t>(1, 4096 / v.channels), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t i = row * v.channels;
        applyRow(x + i, mean, scale, shift, at(i), relu, y + i, v.channels);
      }
    });
    return;
  }
  parallel(v.outer * v.channels, std::max<int64_t>(1, 4096 / v.inner), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t c = row % v.channels;
      const int64_t i = row * v.inner;
      applyPlane(x + i, mean[c], scale[c], shift[c], at(i), relu, y + i, v.inner);
    }
  });
}

// sums[c] += x - center, sums[C + c] += (x - center)^2
SERESNET_CLONES void addDeviations(const float* x, const float* center, int64_t rows, int64_t channels, double* sums) {
  double* squares = sums + channels;
  for (; rows >= rowBlock; rows -= rowBlock, x += rowBlock * channels)
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0;
      float square = 0;
#pragma GCC unroll 8
      for (int64_t row = 0; row < rowBlock; ++row) {
        const float deviation = x[row * channels + c] - center[c];
        sum += deviation;
        square += deviation * deviation;
      }
      sums[c] += sum;
      squares[c] += square;
    }
  for (; rows > 0; --rows, x += channels)
    for (int64_t c = 0; c < channels; ++c) {
      const double deviation = x[c] - center[c];
      sums[c] += deviation;
      squares[c] += deviation * deviation;
    }
}

SERESNET_CLONES void addPlaneDeviations(const float* x, double center, int64_t count, double* sum, double* square) {
  double total = 0;
  double squares = 0;
#pragma omp simd reduction(+ : total, squares)
  for (int64_t i = 0; i < count; ++i) {
    const double deviation = x[i] - center;
    total += deviation;
    squares += deviation * deviation;
  }
  *sum += total;
  *square += squares;
}

// About the mean of each channel: that of elements from all over the batch. Exactly an element where they are all equal.
void centerOf(const View& v, const float* x, float* center) {
  const int64_t count = v.outer * v.inner;
  const int64_t samples = std::min<int64_t>(count, 64);
  for (int64_t c = 0; c < v.channels; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < samples; ++i) {
      const int64_t at = count * i / samples;
      sum += x[(at / v.inner * v.channels + c) * v.inner + at % v.inner];
    }
    center[c] = static_cast<float>(sum / static_cast<double>(samples));
  }
}

// Mean [C] and behind it biased variance [C] of the channels in one pass, around a center so near the mean that the variance
// of large values near each other is right (Chan, Golub and LeVeque 1983).
void statistics(const View& v, const float* x, float* center, double* mean, double* partials) {
  double* variance = mean + v.channels;
  const double count = static_cast<double>(v.outer * v.inner);
  centerOf(v, x, center);
  sumByChannel(
      v, 2, partials, mean,
      [&](int64_t from, int64_t to, double* sums) {
        addDeviations(x + from * v.channels, center, to - from, v.channels, sums);
      },
      [&](int64_t at, int64_t c, double* sums, int64_t stride) {
        addPlaneDeviations(x + at, center[c], v.inner, sums, sums + stride);
      });
  for (int64_t c = 0; c < v.channels; ++c) {
    const double offset = mean[c] / count;
    variance[c] = std::max(variance[c] / count - offset * offset, 0.0);
    mean[c] = center[c] + offset;
  }
}

Layout layoutOf(const Builder& b, size_t input) {
  return b.has(input, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
}

}  // namespace

// batch_norm: x, mean [C], variance [C], gamma [C]?, beta [C]?; batch_norm_act: the same, a residual?, then ReLU?.
void batchNorm(Builder& b) {
  const ops::BatchNorm op(b);
  const Layout layout = layoutOf(b, 0);
  const View v = viewOf(b.input(0).shape, layout);
  const BufferId x = b.read(0, layout);
  const BufferId mean = b.read(1);
  const BufferId variance = b.read(2);
  const BufferId gamma = op.affine ? b.read(3) : -1;
  const BufferId beta = op.affine ? b.read(4) : -1;
  const BufferId residual = op.residual >= 0 ? b.read(static_cast<size_t>(op.residual), layout) : -1;
  const BufferId work = b.scratch(static_cast<size_t>(v.channels) * 2 * sizeof(float));
  const BufferId y = b.write(0, layout);
  b.emit("", [=, eps = op.eps, relu = op.relu](const Pointers& p) {
    float* scale = p.at(work);
    float* shift = scale + v.channels;
    for (int64_t c = 0; c < v.channels; ++c) {
      scale[c] = static_cast<float>((gamma < 0 ? 1.0 : p.at(gamma)[c]) / std::sqrt(p.at(variance)[c] + eps));
      shift[c] = beta < 0 ? 0 : p.at(beta)[c];
    }
    apply(v, p.at(x), p.at(mean), scale, shift, p.maybe(residual), relu, p.at(y));
  });
}

// x, gamma [C]?, beta [C]?, residual? -> y (+ residual) (+ ReLU), the batch's mean [C] and biased variance [C]
void batchNormTrain(Builder& b) {
  const ops::BatchNormTrain op(b);
  const Layout layout = layoutOf(b, 0);
  const View v = viewOf(b.input(0).shape, layout);
  const BufferId x = b.read(0, layout);
  const BufferId gamma = op.affine ? b.read(1) : -1;
  const BufferId beta = op.affine ? b.read(2) : -1;
  const BufferId residual = op.residual >= 0 ? b.read(static_cast<size_t>(op.residual), layout) : -1;
  const BufferId work = b.scratch(static_cast<size_t>(v.channels) * (2 * sizeof(double) + 2 * sizeof(float)));
  const BufferId partials = b.scratch(partialsOf(v, 2) * sizeof(double));
  const BufferId y = b.write(0, layout);
  const BufferId mean = b.write(1);
  const BufferId variance = b.write(2);
  b.emit(tailOf(b), [=, eps = op.eps, relu = op.relu](const Pointers& p) {
    auto* center = p.at<double>(work);
    double* spread = center + v.channels;
    auto* scale = reinterpret_cast<float*>(spread + v.channels);
    float* shift = scale + v.channels;
    statistics(v, p.at(x), shift, center, p.at<double>(partials));
    for (int64_t c = 0; c < v.channels; ++c) {
      p.at(mean)[c] = static_cast<float>(center[c]);
      p.at(variance)[c] = static_cast<float>(spread[c]);
      const double slope = (gamma < 0 ? 1.0 : p.at(gamma)[c]) / std::sqrt(spread[c] + eps);
      scale[c] = static_cast<float>(slope);
      // what rounding the mean lost goes into the shift
      shift[c] = static_cast<float>((beta < 0 ? 0.0 : p.at(beta)[c]) + (p.at(mean)[c] - center[c]) * slope);
    }
    apply(v, p.at(x), p.at(mean), scale, shift, p.maybe(residual), relu, p.at(y));
  });
}

// running mean [C] and variance [C], the batch's mean [C] and biased variance [C], momentum -> the new running ones
void runningStatistics(Builder& b) {
  const ops::RunningStatistics op(b);
  BufferId in[5];
  for (size_t i = 0; i < 5; ++i) in[i] = b.read(i);
  const BufferId mean = b.write(0);
  const BufferId variance = b.write(1);
  b.emit("", [=, count = op.count, size = b.output().size()](const Pointers& p) {
    const double share = *p.at(in[4]);
    for (int64_t c = 0; c < size; ++c) {
      const double unbiased = p.at(in[3])[c] * (count / (count - 1));
      p.at(mean)[c] = static_cast<float>((1 - share) * p.at(in[0])[c] + share * p.at(in[2])[c]);
      p.at(variance)[c] = static_cast<float>((1 - share) * p.at(in[1])[c] + share * unbiased);
    }
  });
}

// weight [O, ...], bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]? -> the weight and bias of a convolution that
// does what convolution and batch norm did. One rounding, at the end.
void foldBatchNorm(Builder& b) {
  const ops::FoldBatchNorm op(b);
  size_t next = 1;
  const BufferId w = b.read(0);
  const BufferId bias = op.bias ? b.read(next++) : -1;
  const BufferId mean = b.read(next++);
  const BufferId variance = b.read(next++);
  const BufferId gamma = op.affine ? b.read(next++) : -1;
  const BufferId beta = op.affine ? b.read(next++) : -1;
  const BufferId newWeight = b.write(0);
  const BufferId newBias = b.write(1);
  const int64_t channels = b.input(0).shape[0];
  const int64_t fan = channels == 0 ? 0 : b.input(0).size() / channels;
  b.emit("", [=, eps = op.eps](const Pointers& p) {
    for (int64_t c = 0; c < channels; ++c) {
      const double scale = (gamma < 0 ? 1.0 : p.at(gamma)[c]) / std::sqrt(p.at(variance)[c] + eps);
      for (int64_t i = c * fan; i < (c + 1) * fan; ++i) p.at(newWeight)[i] = static_cast<float>(p.at(w)[i] * scale);
      const double old = bias < 0 ? 0.0 : p.at(bias)[c];
      const double shift = beta < 0 ? 0.0 : p.at(beta)[c];
      p.at(newBias)[c] = static_cast<float>((old - p.at(mean)[c]) * scale + shift);
    }
  });
}

}  // namespace seresnet::cpu
