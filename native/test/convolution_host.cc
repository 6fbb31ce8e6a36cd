#include <cstring>
#include <vector>

#include "../cuda/convolution.h"
#include "../runtime/errors.h"
#include "simt.h"

// ConvolutionEngine in plain loops with float64 sums, for the device "cuda-sim". It refuses some epilogues, so that the
// executor has to go the ways it has for engines that do.
namespace seresnet::cuda {

namespace {

size_t bytesOf(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

double get(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::float16:
      return __half2float(static_cast<const __half*>(data)[i]);
    case DType::bfloat16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void put(void* data, DType dtype, int64_t i, double value) {
  const auto single = static_cast<float>(value);
  switch (dtype) {
    case DType::float16:
      static_cast<__half*>(data)[i] = __float2half_rn(single);
      break;
    case DType::bfloat16:
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(single);
      break;
    default:
      static_cast<float*>(data)[i] = single;
  }
}

class HostPlan final : public ConvolutionPlan {
 public:
  explicit HostPlan(const Convolution& convolution) : c_(convolution) {}

  // Some bytes, and none for forward passes, as engines do: whoever forgets to give it is found out.
  size_t workspace() const override { return c_.pass == Convolution::Pass::forward ? 0 : 256; }
  std::string name() const override { return "plain loops"; }

  void run(gpu::Stream, const ConvolutionPointers& p) const override {
    if (workspace() > 0) std::memset(p.workspace, 0xff, workspace());
    if (c_.pass == Convolution::Pass::forward) return forward(p);
    if (c_.pass == Convolution::Pass::inputGradient) return inputGradient(p);
    weightGradient(p);
  }

 private:
  int64_t fan() const { return c_.channels / c_.groups; }
  int64_t xAt(int64_t n, int64_t h, int64_t w, int64_t c) const {
    return ((n * c_.height + h) * c_.width + w) * c_.channels + c;
  }
  int64_t yAt(int64_t n, int64_t h, int64_t w, int64_t o) const {
    return ((n * c_.outHeight + h) * c_.outWidth + w) * c_.outChannels + o;
  }
  int64_t wAt(int64_t o, int64_t i, int64_t j, int64_t c) const {
    return ((o * c_.kernel[0] + i) * c_.kernel[1] + j) * fan() + c;
  }

  // Calls use(x's index of the window's first channel, w's) for every tap of output (n, h, w, o) that lies inside.
  template <typename Use>
  void overTaps(int64_t n, int64_t h, int64_t w, int64_t o, Use use) const {
    const int64_t first = o / (c_.outChannels / c_.groups) * fan();
    for (int64_t i = 0; i < c_.kernel[0]; ++i) {
      const int64_t row = h * c_.stride[0] - c_.padding[0] + i * c_.dilation[0];
      if (row < 0 || row >= c_.height) continue;
      for (int64_t j = 0; j < c_.kernel[1]; ++j) {
        const int64_t column = w * c_.stride[1] - c_.padding[1] + j * c_.dilation[1];
        if (column >= 0 && column < c_.width) use(xAt(n, row, column, first), wAt(o, i, j, 0));
      }
    }
  }

  template <typename Use>
  void overOutputs(Use use) const {
    for (int64_t n = 0; n < c_.batch; ++n)
      for (int64_t h = 0; h < c_.outHeight; ++h)
        for (int64_t w = 0; w < c_.outWidth; ++w)
          for (int64_t o = 0; o < c_.outChannels; ++o) use(n, h, w, o);
  }

  void forward(const ConvolutionPointers& p) const {
    overOutputs([&](int64_t n, int64_t h, int64_t w, int64_t o) {
      double sum = 0;
      overTaps(n, h, w, o, [&](int64_t x, int64_t weight) {
        for (int64_t c = 0; c < fan(); ++c) sum += get(p.x, c_.dtype, x + c) * get(p.w, c_.dtype, weight + c);
      });
      if (c_.bias) sum += get(p.bias, c_.dtype, o);
      if (c_.gate) sum *= get(p.gate, c_.dtype, n * c_.outChannels + o);
      const int64_t y = yAt(n, h, w, o);
      if (c_.residual) sum += get(p.residual, c_.dtype, y);
      put(p.y, c_.dtype, y, c_.relu && sum < 0 ? 0 : sum);
    });
  }

  void inputGradient(const ConvolutionPointers& p) const {
    std::vector<double> sums(static_cast<size_t>(c_.batch * c_.height * c_.width * c_.channels), 0.0);
    overOutputs([&](int64_t n, int64_t h, int64_t w, int64_t o) {
      const double g = get(p.y, c_.dtype, yAt(n, h, w, o));
      overTaps(n, h, w, o, [&](int64_t x, int64_t weight) {
        for (int64_t c = 0; c < fan(); ++c) sums[static_cast<size_t>(x + c)] += g * get(p.w, c_.dtype, weight + c);
      });
    });
    for (size_t i = 0; i < sums.size(); ++i) put(p.x, c_.dtype, static_cast<int64_t>(i), sums[i]);
  }

  void weightGradient(const ConvolutionPointers& p) const {
    std::vector<double> sums(static_cast<size_t>(c_.outChannels * c_.kernel[0] * c_.kernel[1] * fan()), 0.0);
    overOutputs([&](int64_t n, int64_t h, int64_t w, int64_t o) {
      const double g = get(p.y, c_.dtype, yAt(n, h, w, o));
      overTaps(n, h, w, o, [&](int64_t x, int64_t weight) {
        for (int64_t c = 0; c < fan(); ++c) sums[static_cast<size_t>(weight + c)] += g * get(p.x, c_.dtype, x + c);
      });
    });
    for (size_t i = 0; i < sums.size(); ++i) put(p.w, c_.dtype, static_cast<int64_t>(i), sums[i]);
  }

  Convolution c_;
};

class HostEngine final : public ConvolutionEngine {
 public:
  // What it has in one: everything on float16; on bfloat16 no epilogue beyond a bias; on float32 no gate.
  std::shared_ptr<const ConvolutionPlan> plan(const Convolution& c) override {
    const bool single = c.dtype == DType::float32 && c.gate;
    const bool brain = c.dtype == DType::bfloat16 && (c.gate || c.residual || c.relu);
    return single || brain ? nullptr : std::make_shared<HostPlan>(c);
  }
};

}  // namespace

std::unique_ptr<ConvolutionEngine> makeEngine(const EngineOptions&) { return std::make_unique<HostEngine>(); }

}  // namespace seresnet::cuda
