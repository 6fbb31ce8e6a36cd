#include "winograd.h"

#include <algorithm>
#include <vector>

#include "cpu/loops/parallel.h"

namespace seresnet::cpu {

namespace {

constexpr int64_t mostBlockFloats = 96 * 1024;  // of work in a core's own cache
constexpr int64_t leastTiles = 12;          // for which reading the weights is worth it

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

WinogradConvolution::WinogradConvolution(int64_t tile, const Shape& x, const Shape& y, const std::vector<int64_t>& padding)
    : simd_(*simd()), transform_(tile == 2 ? simd_.tile2 : simd_.tile4), tile_(tile), images_(x[0]), channels_(x[1]),
      height_(x[2]), width_(x[3]), outputs_(y[1]), outHeight_(y[2]), outWidth_(y[3]), paddingTop_(padding[0]),
      paddingLeft_(padding[1]), rows_(ceilDiv(y[2], tile)), columns_(ceilDiv(y[3], tile)),
      packed_(ceilDiv(y[1], simd_.panel) * simd_.panel), threads_(omp_get_max_threads()) {
  const int64_t most = std::max(leastTiles, mostBlockFloats / (elements() * (channels_ + outputs_)));
  together_ = tiles() < most * threads_;
  // blocks of nearly equal size, as many for each thread
  const int64_t blocks = ceilDiv(ceilDiv(tiles(), most), threads_) * threads_;
  block_ = together_ ? tiles() : ceilDiv(tiles(), blocks);
}

size_t WinogradConvolution::transformedBytes() const {
  return static_cast<size_t>(elements() * channels_ * packed_) * sizeof(float);
}

size_t WinogradConvolution::scratchBytes() const {
  return static_cast<size_t>((together_ ? 1 : threads_) * blockFloats() + threads_ * patchFloats()) * sizeof(float);
}

std::string WinogradConvolution::name() const {
  return "winograd:" + std::string(simd_.name) + " " + std::to_string(tile_) + "x" + std::to_string(tile_);
}

void WinogradConvolution::transformWeights(const float* weights, float* to, bool gradient) const {
  // [elements][panels][channels][panel]
  parallel(packed_ / simd_.panel, 1, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p)
      for (int64_t c = 0; c < channels_; ++c) {
        float taps[9 * widestPanel] = {};
        for (int64_t i = 0; i < simd_.panel && p * simd_.panel + i < outputs_; ++i) {
          const int64_t o = p * simd_.panel + i;
          const float* w = weights + (gradient ? c * outputs_ + o : o * channels_ + c) * 9;
          for (int64_t tap = 0; tap < 9; ++tap) taps[tap * simd_.panel + i] = w[gradient ? 8 - tap : tap];
        }
        transform_.weights(taps, to + (p * channels_ + c) * simd_.panel, channels_ * packed_);
      }
  });
}

void WinogradConvolution::transformIn(const float* x, int64_t first, int64_t count, int64_t from, int64_t to,
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

void WinogradConvolution::multiply(const float* weights, int64_t count, int64_t from, int64_t to, const Work& work) const {
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

void WinogradConvolution::transformOut(const Epilogue& epilogue, float* y, int64_t first, int64_t count, int64_t from,
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

void WinogradConvolution::run(const float* x, const float* weights, const Epilogue& epilogue, float* y,
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
