#include "cuda/kernels/squeeze_excite.h"

#include "check.h"
#include "cuda/kernels/gate.h"

// Squeeze-and-excitation in one pass, by clusters of each size, and in three kernels; the gate's gradients.
namespace test {

using namespace seresnet::cuda;

namespace {

double sigmoid(double value) { return 1 / (1 + std::exp(-value)); }

struct Layers {
  Array w1, b1, w2, b2;

  Layers(DType dtype, int64_t depth, int64_t hidden, int64_t channels)
      : w1(dtype, normal(hidden * depth, 1, 0, 1 / std::sqrt(depth))), b1(DType::float32, normal(hidden, 2)),
        w2(dtype, normal(channels * hidden, 3, 0, 1 / std::sqrt(hidden))), b2(dtype, normal(channels, 4)) {}

  Values gate(const double* pooled) const {
    const int64_t hidden = b1.size(), channels = b2.size(), depth = w1.size() / hidden;
    Values h, result;
    for (int64_t r = 0; r < hidden; ++r) {
      double sum = b1[r];
      for (int64_t c = 0; c < depth; ++c) sum += w1[r * depth + c] * pooled[c];
      h.push_back(std::max(sum, 0.0));
    }
    for (int64_t c = 0; c < channels; ++c) {
      double sum = b2[c];
      for (int64_t r = 0; r < hidden; ++r) sum += w2[c * hidden + r] * h[static_cast<size_t>(r)];
      result.push_back(sigmoid(sum));
    }
    return result;
  }
};

void forward(const std::string& how, DType dtype, const Images& images, int64_t hidden, bool residual, bool relu) {
  const int64_t channels = images.channels, plane = images.plane();
  const Array x(dtype, normal(images.size(), 5)), other(dtype, normal(images.size(), 6));
  const Layers layers(dtype, channels, hidden, channels);
  Values expected(static_cast<size_t>(images.size()));
  for (int64_t n = 0; n < images.batch; ++n) {
    Values pooled(static_cast<size_t>(channels));
    for (int64_t i = 0; i < plane * channels; ++i)
      pooled[static_cast<size_t>(i % channels)] += x[n * plane * channels + i] / static_cast<double>(plane);
    const Values gate = layers.gate(pooled.data());
    for (int64_t i = 0; i < plane * channels; ++i) {
      const int64_t at = n * plane * channels + i;
      const double value = x[at] * gate[static_cast<size_t>(i % channels)] + (residual ? other[at] : 0);
      expected[static_cast<size_t>(at)] = relu ? std::max(value, 0.0) : value;
    }
  }
  Array y(dtype, images.size());
  const Array workspace(DType::uint8, static_cast<int64_t>(squeezeExciteWorkspace(images, dtype)));
  check("squeeze_excite " + how, {{y, expected}}, [&] {
    launchSqueezeExcite(nullptr, {x.data(), residual ? other.data() : nullptr, y.data(), dtype, images, hidden,
                                  layers.w1.data(), layers.w2.data(), {layers.b1.data(), layers.b1.dtype()},
                                  {layers.b2.data(), layers.b2.dtype()}, relu, workspace.data()});
  });
}

void gates(DType dtype, int64_t images, int64_t depth, int64_t hidden, int64_t channels) {
  const Array pooled(dtype, normal(images * depth, 7));
  const Layers layers(dtype, depth, hidden, channels);
  const Values from = pooled.values();
  Values expected;
  for (int64_t n = 0; n < images; ++n)
    for (const double value : layers.gate(from.data() + n * depth)) expected.push_back(value);
  Array gate(dtype, images * channels);
  check("excite", {{gate, expected}}, [&] {
    launchExcite(nullptr, {pooled.data(), gate.data(), dtype, images, depth, hidden, channels, layers.w1.data(),
                           layers.w2.data(), {layers.b1.data(), layers.b1.dtype()}, {layers.b2.data(), layers.b2.dtype()}});
  });
}

void backward(DType dtype, const Images& images, bool masked) {
  const int64_t channels = images.channels, plane = images.plane(), size = images.size();
  const Array x(dtype, normal(size, 8)), dy(dtype, normal(size, 9)), y(dtype, normal(size, 10));
  Values gates = normal(images.batch * channels, 11);
  for (double& value : gates) value = sigmoid(value);
  const Array gate(dtype, gates);
  Values dx, residual, dgate(static_cast<size_t>(images.batch * channels));
  for (int64_t i = 0; i < size; ++i) {
    const int64_t at = i / (plane * channels) * channels + i % channels;
    const double g = masked && !(y[i] > 0) ? 0 : dy[i];
    residual.push_back(g);
    dx.push_back(g * gate[at]);
    dgate[static_cast<size_t>(at)] += g * x[i];
  }
  Array dxs(dtype, size), residuals(dtype, size), dgates(dtype, images.batch * channels);
  check("gate_gradient", {{dxs, dx}, {residuals, residual}, {dgates, dgate}}, [&] {
    launchGateGradient(nullptr, {x.data(), gate.data(), dy.data(), masked ? y.data() : nullptr, dxs.data(), dgates.data(),
                                 residuals.data(), dtype, images});
  });
}

}  // namespace

void squeezeExciteKernels() {
  for (const DType dtype : floats) {
    forward("1x1", dtype, {1, 1, 1, 8}, 8, false, false);
    forward("odd channels", dtype, {2, 3, 5, 13}, 3, true, true);
    forward("aligned", dtype, {2, 5, 4, 64}, 8, true, false);
    forward("more channels than threads", dtype, {1, 2, 2, 1040}, 5, false, true);
    gates(dtype, 1, 1, 1, 1);
    gates(dtype, 1, 64, 16, 48);
    gates(dtype, 2, 64, 3, 48);
    gates(dtype, 5, 13, 3, 7);
    backward(dtype, {2, 3, 3, 24}, true);
    backward(dtype, {1, 1, 1, 5}, false);
  }
  forward("7x7x2048", DType::float16, {1, 7, 7, 2048}, 128, true, true);
  backward(DType::float16, {1, 7, 7, 2048}, true);
  gates(DType::float16, 1, 2048, 128, 2048);
  // less shared memory: larger clusters, with shares that do not come out even, then none that holds an image
  const simt::Device whole = simt::device();
  for (const size_t kilobytes : {16, 12, 10, 8, 6, 5, 3}) {
    simt::device().sharedPerBlock = kilobytes * 1024;
    simt::device().sharedPerProcessor = kilobytes * 1024 + 1024;
    forward(std::to_string(kilobytes) + " KiB", DType::float32, {2, 7, 7, 64}, 4, true, true);
    forward(std::to_string(kilobytes) + " KiB, odd", DType::float16, {2, 6, 5, 33}, 2, true, true);
  }
  simt::device() = whole;
  simt::device().capability = 80;
  simt::device().sharedPerBlock = 4096;
  forward("without clusters", DType::float32, {2, 7, 7, 64}, 4, true, true);
  gates(DType::float32, 1, 64, 16, 48);
  simt::device() = whole;
}

}  // namespace test
