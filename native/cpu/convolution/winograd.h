#pragma once

#include <string>
#include <vector>

#include "cpu/loops/simd.h"
#include "runtime/backend.h"

namespace seresnet::cpu {

// A 3x3 convolution of stride 1 by Winograd's algorithm: channels-last, tiles of m x m pixels, m 2 or 4, with 2.25 or 4
// times fewer multiplications (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015). oneDNN has
// it for AVX-512 alone, and no longer in 3.x.
class WinogradConvolution {
 public:
  // x [N, C, H, W] and y [N, O, H', W'].
  WinogradConvolution(int64_t tile, const Shape& x, const Shape& y, const std::vector<int64_t>& padding);

  std::string name() const;
  // Weights [O, C, 3, 3] transformed and packed for run(); for the gradient of a convolution's input, that convolution's
  // own, [C, O, 3, 3], which are turned round.
  void transformWeights(const float* weights, float* to, bool gradient = false) const;
  size_t transformedBytes() const;
  size_t scratchBytes() const;

  // The epilogue's gate is a factor for each image and channel, [N, O]. The residual may be y itself.
  void run(const float* x, const float* weights, const Epilogue& epilogue, float* y, float* scratch) const;

  // The gradient [O, C, 3, 3] of the weights, from x and the gradient of y.
  void weightGradient(const float* x, const float* dy, float* dw, float* scratch) const;
  size_t weightGradientScratchBytes() const;

 private:
  // Working memory of some tiles: of the transformed input [elements, tiles, C], of the products [elements, tiles, O], and
  // a patch at the image's border.
  struct Work {
    float *in, *out, *patch;
  };

  int64_t size() const { return tile_ + 2; }
  int64_t elements() const { return size() * size(); }
  int64_t tiles() const { return images_ * rows_ * columns_; }
  int64_t blockFloats() const { return elements() * block_ * (channels_ + outputs_); }
  int64_t patchFloats() const { return elements() * channels_; }
  int64_t gradientBlock() const;  // tiles whose share of the weights' gradient is summed up at a time
  // Of the tiles [first, first + count), each function its part [from, to) of the tiles or the elements.
  void transformIn(const float* x, int64_t first, int64_t count, int64_t from, int64_t to, const Work& work) const;
  void multiply(const float* weights, int64_t count, int64_t from, int64_t to, const Work& work) const;
  void transformOut(const Epilogue& epilogue, float* y, int64_t first, int64_t count, int64_t from, int64_t to,
                    const Work& work) const;

  const Simd& simd_;
  const TileTransform& transform_;
  int64_t tile_;
  int64_t images_, channels_, height_, width_;
  int64_t outputs_, outHeight_, outWidth_;
  int64_t paddingTop_, paddingLeft_;
  int64_t rows_, columns_;  // of tiles in an image
  int64_t packed_;          // outputs, filled up to whole panels
  int64_t threads_;
  int64_t block_;           // tiles at a time
  bool together_;           // whether the threads share each block; else each has its own
};

}  // namespace seresnet::cpu
