#include "tiled_conv2d.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"

namespace seresnet::cpu {

namespace {

constexpr int64_t mostBlockFloats = 96 * 1024;  // of work in a core's own cache
constexpr int64_t leastTiles = 12;          // for which reading the weights is worth it

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// G [m + 2, 3] of Toom and Cook for the points of simd_kernels.cc and infinity: row i is (1, p, p^2) / prod (p - p_k).
std::vector<double> weightTransform(int64_t tile) {
  const double a = std::sqrt(0.5);
  const double b = std::sqrt(2.0);
  const std::vector<double> points = tile == 2 ? std::vector<double>{0, 1, -1} : std::vector<double>{0, a, -a, b, -b};
  std::vector<double> g;
  for (const double p : points) {
    double scale = 1;
    for (const double other : points)
      if (other != p) scale *= p - other;
    g.insert(g.end(), {1 / scale, p / scale, p * p / scale});
  }
  g.insert(g.end(), {0, 0, 1});
  return g;
}

}  // namespace

TiledConvolution::TiledConvolution(const Simd& simd, int64_t tile, const Shape& x, const Shape& y, int64_t paddingTop,
                                   int64_t paddingLeft)
    : simd_(simd), transform_(tile == 2 ? simd.tile2 : simd.tile4), tile_(tile), images_(x[0]), channels_(x[1]),
      height_(x[2]), width_(x[3]), outputs_(y[1]), outHeight_(y[2]), outWidth_(y[3]), paddingTop_(paddingTop),
      paddingLeft_(paddingLeft), rows_(ceilDiv(y[2], tile)), columns_(ceilDiv(y[3], tile)),
      packed_(ceilDiv(y[1], simd.panel) * simd.panel), threads_(omp_get_max_threads()) {
  const int64_t most = std::max(leastTiles, mostBlockFloats / (elements() * (channels_ + outputs_)));
  together_ = tiles() < most * threads_;
  // blocks of nearly equal size, as many for each thread
  const int64_t blocks = ceilDiv(ceilDiv(tiles(), most), threads_) * threads_;
  block_ = together_ ? tiles() : ceilDiv(tiles(), blocks);
}

size_t TiledConvolution::transformedBytes() const {
  return static_cast<size_t>(elements() * channels_ * packed_) * sizeof(float);
}

size_t TiledConvolution::scratchBytes() const {
  return static_cast<size_t>((together_ ? 1 : threads_) * blockFloats() + threads_ * patchFloats()) * sizeof(float);
}

std::string TiledConvolution::name() const {
  return "winograd:" + std::string(simd_.name) + " " + std::to_string(tile_) + "x" + std::to_string(tile_);
}

void TiledConvolution::transformWeights(const float* weights, float* to) const {
  const std::vector<double> g = weightTransform(tile_);
  const int64_t n = size();
  parallel(packed_, 1, [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; ++o)
      for (int64_t c = 0; c < channels_; ++c) {
        // [elements][panels][channels][panel]
        float* at = to + (o / simd_.panel * channels_ + c) * simd_.panel + o % simd_.panel;
        const float* w = weights + (o * channels_ + c) * 9;
        double half[6][3] = {};
        for (int64_t i = 0; i < n && o < outputs_; ++i)
          for (int64_t j = 0; j < 3; ++j)
            for (int64_t k = 0; k < 3; ++k) half[i][j] += g[static_cast<size_t>(i * 3 + k)] * w[k * 3 + j];
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < 3; ++k) sum += half[i][k] * g[static_cast<size_t>(j * 3 + k)];
            at[(i * n + j) * channels_ * packed_] = static_cast<float>(sum);
          }
      }
  });
}

void TiledConvolution::transformIn(const float* x, int64_t first, int64_t count, int64_t from, int64_t to,
                                   const Work& work) const {
  const int64_t n = size();
  const int64_t c = channels_;
  for (int64_t i = from; i < to; ++i) {
    const int64_t tile = first + i;
    const int64_t image = tile / (rows_ * columns_);
    const int64_t top = tile / columns_ % rows_ * tile_ - paddingTop_;
    const int64_t left = tile % columns_ * tile_ - paddingLeft_;
    const float* at = x + ((image * height_ + top) * width_ + left) * c;
    Patch patch{width_ * c, c, c};
    if (top < 0 || left < 0 || top + n > height_ || left + n > width_) {
      // over the border: a copy with zeros around
      std::fill_n(work.patch, n * n * c, 0.F);
      const int64_t begin = std::max<int64_t>(0, -left);
      const int64_t end = std::min(n, width_ - left);
      for (int64_t row = std::max<int64_t>(0, -top); row < std::min(n, height_ - top); ++row)
        if (begin < end) std::copy_n(at + row * patch.row + begin * c, (end - begin) * c, work.patch + (row * n + begin) * c);
      at = work.patch;
      patch.row = n * c;
    }
    transform_.in(at, patch, work.in + i * c, count * c);
  }
}

void TiledConvolution::multiply(const float* weights, int64_t count, int64_t from, int64_t to, const Work& work) const {
  for (int64_t i = from; i < to; ++i) {
    Product p{};
    p.a = work.in + i * count * channels_;
    p.aStride = p.depth = channels_;
    p.b = weights + i * channels_ * packed_;
    p.c = work.out + i * count * outputs_;
    p.cStride = p.columns = outputs_;
    p.rows = count;
    simd_.multiply(p);
  }
}

void TiledConvolution::transformOut(const Epilogue& epilogue, float* y, int64_t first, int64_t count, int64_t from,
                                    int64_t to, const Work& work) const {
  const Patch patch{outWidth_ * outputs_, outputs_, outputs_};
  for (int64_t i = from; i < to; ++i) {
    const int64_t tile = first + i;
    const int64_t image = tile / (rows_ * columns_);
    const int64_t top = tile / columns_ % rows_ * tile_;
    const int64_t left = tile % columns_ * tile_;
    const int64_t at = ((image * outHeight_ + top) * outWidth_ + left) * outputs_;
    Epilogue here = epilogue;
    if (here.gate != nullptr) here.gate += image * outputs_;
    if (here.residual != nullptr) here.residual += at;
    transform_.out(work.out + i * outputs_, count * outputs_, here, y + at, patch, outHeight_ - top, outWidth_ - left);
  }
}

void TiledConvolution::run(const float* x, const float* weights, const Epilogue& epilogue, float* y,
                           float* scratch) const {
  const auto workOf = [&](int64_t block) {
    const int64_t thread = omp_get_thread_num();
    float* in = scratch + block * blockFloats();
    return Work{in, in + elements() * block_ * channels_, scratch + (together_ ? 1 : threads_) * blockFloats() + thread * patchFloats()};
  };
  if (!together_) {
    return parallel(ceilDiv(tiles(), block_), 1, [&](int64_t begin, int64_t end) {
      const Work work = workOf(omp_get_thread_num());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * block_;
        const int64_t count = std::min(block_, tiles() - first);
        transformIn(x, first, count, 0, count, work);
        multiply(weights, count, 0, elements(), work);
        transformOut(epilogue, y, first, count, 0, count, work);
      }
    });
  }
  const int64_t count = tiles();
  parallel(count, 1, [&](int64_t from, int64_t to) { transformIn(x, 0, count, from, to, workOf(0)); });
  parallel(elements(), 1, [&](int64_t from, int64_t to) { multiply(weights, count, from, to, workOf(0)); });
  parallel(count, 1, [&](int64_t from, int64_t to) { transformOut(epilogue, y, 0, count, from, to, workOf(0)); });
}

}  // namespace seresnet::cpu
