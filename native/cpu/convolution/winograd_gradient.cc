#include <algorithm>

#include "cpu/loops/parallel.h"
#include "winograd.h"

namespace seresnet::cpu {

// y = A^T [(G g G^T) * (B^T x B)] A is linear in g, so dg = G^T [sum over tiles of (A dy A^T) * (B^T x B)] G: products of
// matrices again, one for each element, whose inner dim are the tiles. All threads work on one block of tiles at a time, and
// each element's sum is one thread's, so that their number changes no sum.

int64_t WinogradConvolution::gradientBlock() const {
  constexpr int64_t floats = 256 * 1024;
  return std::min(tiles(), std::clamp<int64_t>(floats / (elements() * (channels_ + packed_)), 32, 512));
}

size_t WinogradConvolution::weightGradientScratchBytes() const {
  const int64_t work = gradientBlock() * (channels_ + packed_) + channels_ * packed_;
  return static_cast<size_t>(elements() * work + threads_ * patchFloats()) * sizeof(float);
}

void WinogradConvolution::weightGradient(const float* x, const float* dy, float* dw, float* scratch) const {
  const int64_t block = gradientBlock();
  float* in = scratch;                                // [elements, tiles, C]
  float* out = in + elements() * block * channels_;   // [elements, tiles, packed]
  float* sums = out + elements() * block * packed_;   // [elements, C, packed]
  float* patches = sums + elements() * channels_ * packed_;
  std::fill(out, sums, 0.F);  // what fills up the panels, too
  std::fill(sums, patches, 0.F);
  for (int64_t first = 0; first < tiles(); first += block) {
    const int64_t count = std::min(block, tiles() - first);
    parallel(count, 1, [&](int64_t from, int64_t to) {
      transformIn(x, first, count, from, to, {in, out, patches + omp_get_thread_num() * patchFloats()});
      for (int64_t i = from; i < to; ++i) {
        const int64_t tile = first + i;
        const int64_t image = tile / (rows_ * columns_);
        const int64_t top = tile / columns_ % rows_ * tile_;
        const int64_t left = tile % columns_ * tile_;
        transform_.outAdjoint(dy + ((image * outHeight_ + top) * outWidth_ + left) * outputs_,
                              {outWidth_ * outputs_, outputs_, outputs_}, outHeight_ - top, outWidth_ - left,
                              out + i * packed_, count * packed_);
      }
    });
    parallel(elements(), 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        Product p{};
        p.a = in + i * count * channels_;
        p.aStride = p.rows = channels_;
        p.b = out + i * count * packed_;
        p.c = sums + i * channels_ * packed_;
        p.bStride = p.cStride = packed_;
        p.columns = outputs_;
        p.depth = count;
        simd_.accumulate(p);
      }
    });
  }
  parallel(channels_, 1, [&](int64_t from, int64_t to) {
    float taps[9 * widestPanel];
    for (int64_t c = from; c < to; ++c)
      for (int64_t o = 0; o < packed_; o += simd_.panel) {
        transform_.weightsAdjoint(sums + c * packed_ + o, channels_ * packed_, taps);
        for (int64_t i = 0; i < simd_.panel && o + i < outputs_; ++i)
          for (int64_t tap = 0; tap < 9; ++tap)
            dw[((o + i) * channels_ + c) * 9 + tap] = taps[tap * simd_.panel + i];
      }
  });
}

}  // namespace seresnet::cpu
