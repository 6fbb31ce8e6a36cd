#include <cmath>

#include "ops.h"
#include "parallel.h"

namespace seresnet::cpu {

namespace {

constexpr int64_t strip = 32;  // channels that one thread takes at a time where they lie side by side

SERESNET_CLONES void addMoments(const float* x, const float* dy, const float* mean, double* sums, double* products,
                                int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    sums[c] += dy[c];
    products[c] += static_cast<double>(dy[c]) * (static_cast<double>(x[c]) - mean[c]);
  }
}

}  // namespace

// x, mean, variance, dy, gamma? -> dx, dgamma, dbeta. With `training` the statistics came from x itself and pass gradients
// on; otherwise they are constants. Sums are in float64, a channel's by one thread.
void batchNormGradient(Builder& b) {
  b.expectArity(4, 5, 3);
  b.expectFloats();
  const Shape& x = b.input(0).shape;
  b.expect(x.size() >= 2 && b.input(3).shape == x && b.output(0).shape == x, "x, dy and dx [N, C, ...]");
  const Shape perChannel{x[1]};
  for (const size_t i : {size_t{1}, size_t{2}, b.inputs() == 5 ? size_t{4} : size_t{1}})
    b.expect(b.input(i).shape == perChannel, "vectors [C]");
  b.expect(b.output(1).shape == perChannel && b.output(2).shape == perChannel, "gradients [C]");

  const Layout layout = b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain;
  const int64_t channels = x[1];
  const int64_t plane = sizeOf(x) / std::max<int64_t>(x[0] * channels, 1);
  const int64_t outer = layout == Layout::channelsLast ? x[0] * plane : x[0];
  const int64_t inner = layout == Layout::channelsLast ? 1 : plane;
  const BufferId from = b.read(0, layout);
  const BufferId mean = b.read(1);
  const BufferId variance = b.read(2);
  const BufferId gradient = b.read(3, layout);
  const BufferId gamma = b.inputs() == 5 ? b.read(4) : -1;
  const BufferId dx = b.write(0, layout);
  const BufferId dgamma = b.write(1);
  const BufferId dbeta = b.write(2);
  const double eps = b.step().number("eps");
  const bool training = b.step().flag("training");
  b.emit("", [=](const Pointers& p) {
    const double count = static_cast<double>(outer * inner);
    parallel((channels + strip - 1) / strip, 1, [&](int64_t first, int64_t last) {
      for (int64_t start = first * strip; start < std::min(last * strip, channels); start += strip) {
        const int64_t width = std::min(strip, channels - start);
        double sums[strip] = {};
        double products[strip] = {};
        float scale[strip];
        float meanPart[strip];
        float variancePart[strip];
        const float* center = p.at(mean) + start;
        for (int64_t row = 0; row < outer; ++row) {
          const int64_t at = (row * channels + start) * inner;
          if (inner == 1) addMoments(p.at(from) + at, p.at(gradient) + at, center, sums, products, width);
          else
            for (int64_t c = 0; c < width; ++c)
              for (int64_t i = at + c * inner; i < at + (c + 1) * inner; ++i)
                addMoments(p.at(from) + i, p.at(gradient) + i, center + c, sums + c, products + c, 1);
        }
        for (int64_t c = 0; c < width; ++c) {
          const double inverse = 1 / std::sqrt(p.at(variance)[start + c] + eps);
          products[c] *= inverse;
          scale[c] = static_cast<float>((gamma < 0 ? 1.0 : p.at(gamma)[start + c]) * inverse);
          meanPart[c] = training ? static_cast<float>(sums[c] / count) : 0;
          variancePart[c] = training ? static_cast<float>(products[c] / count * inverse) : 0;
          p.at(dgamma)[start + c] = static_cast<float>(products[c]);
          p.at(dbeta)[start + c] = static_cast<float>(sums[c]);
        }
        for (int64_t row = 0; row < outer; ++row)
          for (int64_t c = 0; c < width; ++c) {
            const int64_t at = (row * channels + start + c) * inner;
            for (int64_t i = at; i < at + inner; ++i)
              p.at(dx)[i] = scale[c] * (p.at(gradient)[i] - meanPart[c] - (p.at(from)[i] - center[c]) * variancePart[c]);
          }
      }
    });
  });
}

}  // namespace seresnet::cpu
