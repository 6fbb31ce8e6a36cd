#include "cpu/loops/parallel.h"
#include "cpu/program/layout.h"
#include "ops.h"
#include "ops/broadcast.h"

namespace seresnet::cpu {

// Every element `value`. No inputs.
void fill(Builder& b) {
  const ops::Fill op(b);
  const BufferId y = b.write(0);
  b.emit("", [=, value = static_cast<float>(op.value), count = b.output().size()](const Pointers& p) {
    std::fill(p.at(y), p.at(y) + count, value);
  });
}

// x repeated along its extents of 1 and multiplied by `scale`.
void broadcast(Builder& b) {
  const ops::Broadcast op(b);
  const Walk steps = walk(b.output().shape, Layout::plain, {op.strides});
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const auto scale = static_cast<float>(op.scale);
  b.emit("", [=, count = b.output().size()](const Pointers& p) {
    const int64_t inner = steps.inner();
    parallel(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last;) {
        const int64_t length = std::min(last - at, inner - at % inner);
        const float* from = p.at(x) + steps.offset(0, at);
        for (int64_t k = 0; k < length; ++k) p.at(y)[at + k] = scale * from[k * steps.step(0)];
        at += length;
      }
    });
  });
}

}  // namespace seresnet::cpu
