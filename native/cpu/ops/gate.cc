#include "cpu/loops/channels.h"
#include "cpu/loops/parallel.h"
#include "ops.h"
#include "ops/gate.h"

// The last product of squeeze-and-excitation with its tail, and its gradients, in training plans.
namespace seresnet::cpu {

namespace {

// y = x * gate (+ residual) (+ ReLU)
SERESNET_CLONES void gateRow(const float* x, const float* gate, const float* residual, bool relu, float* y, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    float value = x[c] * gate[c];
    if (residual != nullptr) value += residual[c];
    y[c] = relu && value < 0 ? 0 : value;
  }
}

SERESNET_CLONES void gatePlane(const float* x, float gate, const float* residual, bool relu, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float value = x[i] * gate;
    if (residual != nullptr) value += residual[i];
    y[i] = relu && value < 0 ? 0 : value;
  }
}

struct Gradient {
  const float *x, *dy, *y;  // y, the ReLU's result, may be missing
  float *dx, *kept;         // kept, what the ReLU lets through, may be missing
};

template <Mask mask>
inline __attribute__((always_inline)) void stripRows(const Gradient& all, const float* gate, int64_t rows, int64_t channels,
                                                     int64_t width, double* sums) {
  const Gradient g = all;
  for (int64_t first = 0; first < rows; first += rowBlock) {
    float block[strip];
    std::fill_n(block, width, 0.F);
    for (int64_t row = first; row < std::min(rows, first + rowBlock); ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        const float gradient = through<mask>(g.dy, g.y, g.kept, at + c);
        block[c] += gradient * g.x[at + c];
        g.dx[at + c] = gradient * gate[c];
      }
    }
    for (int64_t c = 0; c < width; ++c) sums[c] += block[c];
  }
}

// dx = g gate and sums[c] += g x over the rows of a strip of channels, with g what is let through of dy
SERESNET_CLONES void gradientRows(const Gradient& g, const float* gate, int64_t rows, int64_t channels, int64_t width,
                                  double* sums) {
  if (g.y == nullptr) stripRows<Mask::none>(g, gate, rows, channels, width, sums);
  else if (g.kept == nullptr) stripRows<Mask::relu>(g, gate, rows, channels, width, sums);
  else stripRows<Mask::kept>(g, gate, rows, channels, width, sums);
}

template <Mask mask>
inline __attribute__((always_inline)) double planeSum(const Gradient& g, float gate, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = through<mask>(g.dy, g.y, g.kept, i);
    sum += static_cast<double>(gradient) * g.x[i];
    g.dx[i] = gradient * gate;
  }
  return sum;
}

SERESNET_CLONES double gradientPlane(const Gradient& g, float gate, int64_t count) {
  if (g.y == nullptr) return planeSum<Mask::none>(g, gate, count);
  if (g.kept == nullptr) return planeSum<Mask::relu>(g, gate, count);
  return planeSum<Mask::kept>(g, gate, count);
}

Gradient from(const Gradient& g, int64_t i) {
  const auto at = [i](auto* all) { return all == nullptr ? nullptr : all + i; };
  return {g.x + i, g.dy + i, at(g.y), g.dx + i, at(g.kept)};
}

struct Gated {
  int64_t images, channels, plane;
  Layout layout;

  bool last() const { return layout == Layout::channelsLast; }
};

Gated gatedOf(const Builder& b) {
  const Shape& x = b.input(0).shape;
  return {x[0], x[1], x[2] * x[3], b.has(0, Layout::channelsLast) ? Layout::channelsLast : Layout::plain};
}

}  // namespace

// x, gate, residual? -> x * gate (+ residual) (+ ReLU)
void gate(Builder& b) {
  const ops::Gate op(b);
  const Gated g = gatedOf(b);
  const BufferId x = b.read(0, g.layout);
  const BufferId by = b.read(1);
  const BufferId residual = op.residual ? b.read(2, g.layout) : -1;
  const BufferId y = b.write(0, g.layout);
  b.emit(tailOf(b), [=, relu = op.relu](const Pointers& p) {
    const int64_t length = g.last() ? g.channels : g.plane;
    const int64_t rows = g.images * (g.last() ? g.plane : g.channels);
    parallel(rows, std::max<int64_t>(1, 4096 / std::max<int64_t>(length, 1)), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * length;
        const float* other = residual >= 0 ? p.at(residual) + at : nullptr;
        if (g.last()) gateRow(p.at(x) + at, p.at(by) + row / g.plane * length, other, relu, p.at(y) + at, length);
        else gatePlane(p.at(x) + at, p.at(by)[row], other, relu, p.at(y) + at, length);
      }
    });
  });
}

// x, gate, dy, with `relu` what it made of the result -> dx, dgate, with `residual` its gradient: what the ReLU lets through
void gateGradient(Builder& b) {
  const ops::GateGradient op(b);
  const Gated g = gatedOf(b);
  const BufferId x = b.read(0, g.layout);
  const BufferId by = b.read(1);
  const BufferId dy = b.read(2, g.layout);
  const BufferId y = op.relu ? b.read(3, g.layout) : -1;
  const BufferId dx = b.write(0, g.layout);
  const BufferId dgate = b.write(1);
  const BufferId kept = op.residual ? b.write(2, g.layout) : -1;
  b.emit(tailOf(b), [=](const Pointers& p) {
    const Gradient all{p.at(x), p.at(dy), p.maybe(y), p.at(dx), p.maybe(kept)};
    const float* gates = p.at(by);
    float* sums = p.at(dgate);
    if (!g.last())
      return parallel(g.images * g.channels, std::max<int64_t>(1, 8192 / std::max<int64_t>(g.plane, 1)), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          sums[i] = static_cast<float>(gradientPlane(from(all, i * g.plane), gates[i], g.plane));
      });
    const int64_t strips = (g.channels + strip - 1) / strip;
    parallel(g.images * strips, std::max<int64_t>(1, 8192 / std::max<int64_t>(g.plane * strip, 1)), [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t image = task / strips;
        const int64_t c = task % strips * strip;
        const int64_t width = std::min(strip, g.channels - c);
        const int64_t at = image * g.channels + c;
        double totals[strip];
        std::fill_n(totals, width, 0.0);
        gradientRows(from(all, image * g.plane * g.channels + c), gates + at, g.plane, g.channels, width, totals);
        for (int64_t i = 0; i < width; ++i) sums[at + i] = static_cast<float>(totals[i]);
      }
    });
  });
}

}  // namespace seresnet::cpu
