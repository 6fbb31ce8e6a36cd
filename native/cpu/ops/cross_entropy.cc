#include <cmath>
#include <limits>

#include "ops.h"
#include "ops/cross_entropy.h"

namespace seresnet::cpu {

// Cross-entropy of logits [N, C] and class indices [N], as the reference computes it; too little work for threads.
void crossEntropy(Builder& b) {
  const ops::CrossEntropy op(b);
  const DType indices = b.input(1).dtype;
  const BufferId logits = b.read(0);
  const BufferId targets = b.read(1);
  const BufferId y = b.write(0);
  const int64_t batch = op.batch;
  const int64_t classes = op.classes;
  const double smoothing = op.labelSmoothing;
  b.emit("", [=](const Pointers& p) {
    double total = 0;
    for (int64_t n = 0; n < batch; ++n) {
      const int64_t target = indices == DType::int32 ? p.at<int32_t>(targets)[n] : p.at<int64_t>(targets)[n];
      if (target < 0 || target >= classes)
        throw Error("crossEntropy",
                    "expected targets from 0 to " + std::to_string(classes - 1) + ", got " + std::to_string(target) +
                        " at position " + std::to_string(n),
                    Error::argument);
      const float* row = p.at(logits) + n * classes;
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t c = 0; c < classes; ++c) largest = std::max<double>(largest, row[c]);
      double sum = 0;
      double shifted = 0;
      for (int64_t c = 0; c < classes; ++c) {
        sum += std::exp(row[c] - largest);
        shifted += row[c] - largest;
      }
      const double logSum = std::log(sum);
      const double hit = logSum - (row[target] - largest);
      const double even = logSum - shifted / static_cast<double>(classes);
      const double loss = smoothing == 0 ? hit : (1 - smoothing) * hit + smoothing * even;
      total += loss;
      if (op.each) p.at(y)[n] = static_cast<float>(loss);
    }
    if (!op.each) p.at(y)[0] = static_cast<float>(op.mean ? total / static_cast<double>(batch) : total);
  });
}

// softmax(logits) minus the (smoothed) target, times dL/dloss: logits [N, C], targets [N], dy ([] or [N]) -> dx.
void crossEntropyGradient(Builder& b) {
  const ops::CrossEntropy op(b);
  const DType indices = b.input(1).dtype;
  const BufferId logits = b.read(0);
  const BufferId targets = b.read(1);
  const BufferId dy = b.read(2);
  const BufferId dx = b.write(0);
  const int64_t batch = op.batch;
  const int64_t classes = op.classes;
  const double smoothing = op.labelSmoothing;
  b.emit("", [=](const Pointers& p) {
    for (int64_t n = 0; n < batch; ++n) {
      const int64_t target = indices == DType::int32 ? p.at<int32_t>(targets)[n] : p.at<int64_t>(targets)[n];
      const float* row = p.at(logits) + n * classes;
      const double scale = p.at(dy)[op.each ? n : 0] / (op.mean ? static_cast<double>(batch) : 1.0);
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t c = 0; c < classes; ++c) largest = std::max<double>(largest, row[c]);
      double sum = 0;
      for (int64_t c = 0; c < classes; ++c) sum += std::exp(row[c] - largest);
      for (int64_t c = 0; c < classes; ++c) {
        const double wanted = smoothing / static_cast<double>(classes) + (c == target ? 1 - smoothing : 0);
        p.at(dx)[n * classes + c] = static_cast<float>(scale * (std::exp(row[c] - largest) / sum - wanted));
      }
    }
  });
}

}  // namespace seresnet::cpu
