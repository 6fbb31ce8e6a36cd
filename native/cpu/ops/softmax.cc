#include <cmath>
#include <limits>

#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/reduce.h"

namespace seresnet::cpu {

// softmax and log_softmax over one dim; the largest value is taken off first, so that nothing overflows.
void softmax(Builder& b) {
  const ops::Softmax op(b);
  const int64_t extent = op.extent;
  const int64_t step = op.inner;
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const int64_t lines = extent == 0 ? 0 : op.outer * op.inner;
  b.emit("", [=, logarithm = op.logarithm](const Pointers& p) {
    const float* from = p.at(x);
    float* to = p.at(y);
    parallel(lines, std::max<int64_t>(1, 2048 / extent), [&](int64_t first, int64_t last) {
      for (int64_t line = first; line < last; ++line) {
        const int64_t start = line / step * extent * step + line % step;
        const int64_t end = start + extent * step;
        float largest = -std::numeric_limits<float>::infinity();
        for (int64_t i = start; i < end; i += step) largest = from[i] > largest || from[i] != from[i] ? from[i] : largest;
        double sum = 0;
        for (int64_t i = start; i < end; i += step) sum += std::exp(static_cast<double>(from[i]) - largest);
        const double logSum = std::log(sum);
        for (int64_t i = start; i < end; i += step) {
          const double shifted = static_cast<double>(from[i]) - largest;
          to[i] = static_cast<float>(logarithm ? shifted - logSum : std::exp(shifted) / sum);
        }
      }
    });
  });
}

}  // namespace seresnet::cpu
