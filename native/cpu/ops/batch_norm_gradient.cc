#include <cmath>

#include "cpu/loops/channels.h"
#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/batch_norm.h"

namespace seresnet::cpu {

namespace {

template <Mask mask>
inline __attribute__((always_inline)) void moments(const float* x, const float* dy, const float* y, float* kept,
                                                   const float* mean, int64_t rows, int64_t channels, double* sums) {
  double* products = sums + channels;
  for (int64_t first = 0; first < rows; first += rowBlock)
    for (int64_t start = 0; start < channels; start += strip) {
      const int64_t width = std::min(strip, channels - start);
      float sum[strip];
      float product[strip];
      std::fill_n(sum, width, 0.F);
      std::fill_n(product, width, 0.F);
      for (int64_t row = first; row < std::min(rows, first + rowBlock); ++row) {
        const int64_t at = row * channels + start;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          const float gradient = through<mask>(dy, y, kept, at + c);
          sum[c] += gradient;
          product[c] += gradient * (x[at + c] - mean[start + c]);
        }
      }
      for (int64_t c = 0; c < width; ++c) {
        sums[start + c] += sum[c];
        products[start + c] += product[c];
      }
    }
}

// sums[c] += dy, sums[C + c] += dy (x - mean)
SERESNET_CLONES void addMoments(const float* x, const float* dy, const float* y, float* kept, const float* mean,
                                int64_t rows, int64_t channels, double* sums) {
  if (y == nullptr) moments<Mask::none>(x, dy, y, kept, mean, rows, channels, sums);
  else if (kept == nullptr) moments<Mask::relu>(x, dy, y, kept, mean, rows, channels, sums);
  else moments<Mask::kept>(x, dy, y, kept, mean, rows, channels, sums);
}

template <Mask mask>
inline __attribute__((always_inline)) void planeMoments(const float* x, const float* dy, const float* y, float* kept,
                                                        double mean, int64_t count, double* sum, double* product) {
  double total = 0;
  double products = 0;
#pragma omp simd reduction(+ : total, products)
  for (int64_t i = 0; i < count; ++i) {
    const double gradient = through<mask>(dy, y, kept, i);
    total += gradient;
    products += gradient * (x[i] - mean);
  }
  *sum += total;
  *product += products;
}

SERESNET_CLONES void addPlaneMoments(const float* x, const float* dy, const float* y, float* kept, double mean,
                                     int64_t count, double* sum, double* product) {
  if (y == nullptr) planeMoments<Mask::none>(x, dy, y, kept, mean, count, sum, product);
  else if (kept == nullptr) planeMoments<Mask::relu>(x, dy, y, kept, mean, count, sum, product);
  else planeMoments<Mask::kept>(x, dy, y, kept, mean, count, sum, product);
}

template <Mask mask>
inline __attribute__((always_inline)) void row(const float* x, const float* dy, const float* y, const float* mean,
                                               const float* scale, const float* meanPart, const float* variancePart,
                                               float* dx, int64_t channels) {
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c)
    dx[c] = scale[c] * (through<mask>(dy, y, nullptr, c) - meanPart[c] - (x[c] - mean[c]) * variancePart[c]);
}

// dx = scale (dy - meanPart - (x - mean) variancePart)
SERESNET_CLONES void applyRow(const float* x, const float* dy, const float* y, const float* mean, const float* scale,
                              const float* meanPart, const float* variancePart, float* dx, int64_t channels) {
  if (y == nullptr) row<Mask::none>(x, dy, y, mean, scale, meanPart, variancePart, dx, channels);
  else row<Mask::relu>(x, dy, y, mean, scale, meanPart, variancePart, dx, channels);
}

template <Mask mask>
inline __attribute__((always_inline)) void plane(const float* x, const float* dy, const float* y, float mean, float scale,
                                                 float meanPart, float variancePart, float* dx, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    dx[i] = scale * (through<mask>(dy, y, nullptr, i) - meanPart - (x[i] - mean) * variancePart);
}

SERESNET_CLONES void applyPlane(const float* x, const float* dy, const float* y, float mean, float scale, float meanPart,
                                float variancePart, float* dx, int64_t count) {
  if (y == nullptr) plane<Mask::none>(x, dy, y, mean, scale, meanPart, variancePart, dx, count);
  else plane<Mask::relu>(x, dy, y, mean, scale, meanPart, variancePart, dx, count);
}

}  // namespace

// x, mean, variance, dy, gamma?, with `relu` what it made of the result -> dx, dgamma, dbeta, with `residual` its gradient:
// what the ReLU lets through. With `training` the statistics came from x itself and pass gradients on; otherwise they are
// constants. Sums are in float64.
void batchNormGradient(Builder& b) {
  const ops::BatchNormGradient op(b);
  const Layout layout = b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
  const View v = viewOf(b.input(0).shape, layout);
  const BufferId images = b.read(0, layout);
  const BufferId mean = b.read(1);
  const BufferId variance = b.read(2);
  const BufferId gradient = b.read(3, layout);
  const BufferId gamma = op.affine ? b.read(4) : -1;
  const BufferId activated = op.activated >= 0 ? b.read(static_cast<size_t>(op.activated), layout) : -1;
  const BufferId dx = b.write(0, layout);
  const BufferId dgamma = b.write(1);
  const BufferId dbeta = b.write(2);
  const BufferId masked = op.residual ? b.write(3, layout) : -1;
  const BufferId work = b.scratch(static_cast<size_t>(v.channels) * (2 * sizeof(double) + 3 * sizeof(float)));
  const BufferId partials = b.scratch(partialsOf(v, 2) * sizeof(double));
  b.emit(tailOf(b), [=, eps = op.eps, training = op.training](const Pointers& p) {
    const double count = static_cast<double>(v.outer * v.inner);
    const int64_t channels = v.channels;
    const float* values = p.at(images);
    const float* gradients = p.at(gradient);
    const float* center = p.at(mean);
    const float* result = p.maybe(activated);
    float* kept = p.maybe(masked);
    const auto from = [](auto* all, int64_t i) { return all == nullptr ? nullptr : all + i; };
    auto* sums = p.at<double>(work);
    auto* scale = reinterpret_cast<float*>(sums + 2 * channels);
    float* meanPart = scale + channels;
    float* variancePart = meanPart + channels;
    sumByChannel(
        v, 2, p.at<double>(partials), sums,
        [&](int64_t first, int64_t last, double* totals) {
          const int64_t at = first * channels;
          addMoments(values + at, gradients + at, from(result, at), from(kept, at), center, last - first, channels, totals);
        },
        [&](int64_t at, int64_t c, double* totals, int64_t stride) {
          addPlaneMoments(values + at, gradients + at, from(result, at), from(kept, at), center[c], v.inner, totals,
                          totals + stride);
        });
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = 1 / std::sqrt(p.at(variance)[c] + eps);
      const double product = sums[channels + c] * inverse;
      scale[c] = static_cast<float>((gamma < 0 ? 1.0 : p.at(gamma)[c]) * inverse);
      meanPart[c] = training ? static_cast<float>(sums[c] / count) : 0;
      variancePart[c] = training ? static_cast<float>(product / count * inverse) : 0;
      p.at(dgamma)[c] = static_cast<float>(product);
      p.at(dbeta)[c] = static_cast<float>(sums[c]);
    }
    if (kept != nullptr) {
      gradients = kept;
      result = nullptr;
    }
    const bool rows = v.inner == 1;
    const int64_t length = rows ? channels : v.inner;
    parallel(rows ? v.outer : v.outer * channels, std::max<int64_t>(1, 8192 / length), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * length;
        const int64_t c = row % channels;  // of a plane
        const float* y = from(result, at);
        if (rows) applyRow(values + at, gradients + at, y, center, scale, meanPart, variancePart, p.at(dx) + at, channels);
        else
          applyPlane(values + at, gradients + at, y, center[c], scale[c], meanPart[c], variancePart[c], p.at(dx) + at,
                     v.inner);
      }
    });
  });
}

}  // namespace seresnet::cpu
