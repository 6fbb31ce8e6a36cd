#include <algorithm>

#include "cpu/loops/integers.h"
#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "cpu/program/layout.h"
#include "ops.h"
#include "ops/reduce.h"

namespace seresnet::cpu {

namespace {

// The kept and the reduced dims, each with its steps in the input.
struct Split {
  Walk kept, reduced;
};

Split split(const Builder& b, const std::vector<bool>& over) {
  const Shape& shape = b.input(0).shape;
  const std::vector<int64_t> strides = stridesOf(shape);
  const auto pick = [&](bool reduced) {
    Shape picked;
    std::vector<int64_t> steps;
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      if (over[dim] != reduced) continue;
      picked.push_back(shape[dim]);
      steps.push_back(strides[dim]);
    }
    return walk(picked, Layout::plain, {steps});
  };
  return {pick(false), pick(true)};
}

template <typename T>
double sumAlong(const T* x, int64_t step, int64_t count) {
  if constexpr (std::is_same_v<T, float>)
    if (step == 1) return sumOf(x, count);
  double sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += x[k * step];
  return sum;
}

template <typename T>
Kernel sumKernel(const Split& s, int64_t size, int64_t count, bool divide, BufferId x, BufferId y) {
  return [=](const Pointers& p) {
    const T* from = p.at<T>(x);
    T* to = p.at<T>(y);
    const int64_t length = s.reduced.inner();
    parallel(size, std::max<int64_t>(1, 8192 / std::max<int64_t>(count, 1)), [&](int64_t first, int64_t last) {
      for (int64_t index = first; index < last; ++index) {
        const T* start = from + s.kept.offset(0, index);
        if constexpr (std::is_same_v<T, int64_t>) {
          uint64_t sum = 0;
          for (int64_t k = 0; k < count; ++k) sum += static_cast<uint64_t>(start[s.reduced.offset(0, k)]);
          to[index] = static_cast<int64_t>(sum);
        } else {
          double sum = 0;
          for (int64_t row = 0; row < count; row += length)
            sum += sumAlong(start + s.reduced.offset(0, row), s.reduced.step(0), length);
          if constexpr (std::is_integral_v<T>) to[index] = static_cast<T>(wrapped(sum));
          else to[index] = static_cast<float>(divide ? sum / static_cast<double>(count) : sum);
        }
      }
    });
  };
}

// Sum over all pixels of channels-last images: a strip of channels at a time, so that the threads change nothing.
template <typename T>
void pixels(Builder& b, Layout layout, const char* name, bool divide) {
  const Shape& shape = b.input(0).shape;
  const int64_t channels = shape[1];
  const int64_t plane = shape[2] * shape[3];
  constexpr int64_t strip = 64;
  const int64_t strips = (channels + strip - 1) / strip;
  const BufferId x = b.read(0, layout);
  const BufferId y = b.write(0);
  const float factor = divide ? 1.F / static_cast<float>(plane) : 1.F;
  b.emit(name, [=, images = shape[0]](const Pointers& p) {
    parallel(images * strips, std::max<int64_t>(1, 8192 / (plane * strip)), [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        const int64_t image = at / strips;
        const int64_t from = at % strips * strip;
        const int64_t width = std::min(strip, channels - from);
        float* sums = p.at(y) + image * channels + from;
        std::fill(sums, sums + width, 0.F);
        addRows(p.at<T>(x) + image * plane * channels + from, plane, channels, width, sums);
        for (int64_t c = 0; c < width; ++c) sums[c] *= factor;
      }
    });
  });
}

}  // namespace

// sum and mean over `dims`; whether they are kept with extent 1 only shows in the output's shape.
void reduce(Builder& b) {
  const ops::Reduce op(b);
  const DType dtype = b.input(0).dtype;
  const bool divide = op.mean;
  const Split s = split(b, op.reduced);
  const bool images = b.input(0).shape.size() == 4 && b.has(0, Layout::channelsLast) && !b.has(0, Layout::plain);
  if (images && op.reduced == std::vector<bool>{false, false, true, true}) {
    if (b.hasExactly(0, Layout::bfloat16)) return pixels<Bfloat16>(b, Layout::bfloat16, "pixels bfloat16", divide);
    return pixels<float>(b, Layout::channelsLast, "pixels", divide);
  }
  const BufferId x = b.read(0);
  const BufferId y = b.write(0);
  const int64_t size = b.output().size();
  const int64_t count = size == 0 ? 0 : b.input(0).size() / size;
  if (dtype == DType::int64) b.emit("", sumKernel<int64_t>(s, size, count, divide, x, y));
  else if (dtype == DType::int32) b.emit("", sumKernel<int32_t>(s, size, count, divide, x, y));
  else if (dtype == DType::uint8) b.emit("", sumKernel<uint8_t>(s, size, count, divide, x, y));
  else b.emit("", sumKernel<float>(s, size, count, divide, x, y));
}

}  // namespace seresnet::cpu
