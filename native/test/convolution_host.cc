#include <cstring>

#include "cuda/convolution/autotune.h"
#include "cuda/convolution/convolution_exact.h"
#include "faults_host.h"
#include "runtime/errors.h"
#include "simt.h"
#include "streams_host.h"

// ConvolutionEngine in plain loops with float64 sums, for the device "cuda-sim". It refuses some epilogues, so that the
// executor has to go the ways it has for engines that do. As a device does, it is lost by an address that is not aligned as
// its plan was promised. Autotuning finds others beside the plain loops: quick ones, each wrong in its own way.
namespace seresnet::cuda {

namespace {

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

// What may be wrong with an engine: nothing; it forgets the last elements; every element is a little off; everything is 0, as
// it is right where all operands are; it writes not a number; it fails when it is asked to run.
enum class Flaw : uint8_t { none, short_, inexact, zero, notANumber, fails };

class HostPlan final : public ConvolutionPlan {
 public:
  HostPlan(const Convolution& convolution, Flaw flaw) : c_(convolution), flaw_(flaw) {}

  // Some bytes, and none for forward passes, as engines do: whoever forgets to give it is found out.
  size_t workspace() const override { return c_.pass == Convolution::Pass::forward ? 0 : 256; }
  std::string name() const override { return flaw_ == Flaw::none ? "plain loops" : "quick loops"; }

  void run(gpu::Stream stream, const ConvolutionPointers& pointers) const override {
    if (flaw_ == Flaw::fails || host::fails("execute", c_.text()))
      throw Error("cudnnBackendExecute " + c_.text(), "CUDNN_STATUS_EXECUTION_FAILED");
    host::enqueue(stream, c_.text(), [p = pointers, c = c_, flaw = flaw_, bytes = workspace()] {
      const std::pair<const void*, int64_t> promised[] = {{p.x, c.xAlignment}, {p.w, c.wAlignment}, {p.y, c.yAlignment},
                                                          {p.gate, 16},        {p.bias, 16},        {p.residual, 16}};
      for (const auto& [pointer, alignment] : promised)
        if (reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(alignment) != 0)
          return host::lose("cudaErrorMisalignedAddress: misaligned address");
      if (bytes > 0) std::memset(p.workspace, 0xff, bytes);
      compute(c, p, flaw);
    });
  }

 private:
  static void compute(const Convolution& c, const ConvolutionPointers& p, Flaw flaw) {
    const void* operands[] = {p.x, p.w, p.y, p.gate, p.bias, p.residual};
    void* results[] = {p.x, p.w, p.y};
    void* result = results[static_cast<int>(resultOf(c))];
    const int64_t count = elementsOf(c, resultOf(c));
    const auto at = [&](Operand operand, int64_t i) { return get(operands[static_cast<int>(operand)], c.dtype, i); };
    const bool right = flaw == Flaw::none;
    for (int64_t i = 0; i < count; ++i) {
      if (flaw == Flaw::short_ && i >= count - 1) return;
      double value = flaw == Flaw::zero || flaw == Flaw::notANumber ? 0 : exactElement(c, i, at);
      if (flaw == Flaw::notANumber && i == count / 2) value = std::numeric_limits<double>::quiet_NaN();
      put(result, c.dtype, i, right ? value : value * 1.1);
    }
  }

  Convolution c_;
  Flaw flaw_;
};

class HostEngine final : public ConvolutionEngine {
 public:
  explicit HostEngine(bool autotune) : autotune_(autotune) {}

  // What it has in one: everything on float16; on bfloat16 no epilogue beyond a bias; on float32 no gate.
  std::shared_ptr<const ConvolutionPlan> plan(const Convolution& c) override {
    const bool single = c.dtype == DType::float32 && c.gate;
    const bool brain = c.dtype == DType::bfloat16 && (c.gate || c.residual || c.relu);
    if (single || brain || host::fails("engine", c.text())) return nullptr;
    if (!autotune_) return std::make_shared<HostPlan>(c, Flaw::none);
    std::vector<std::shared_ptr<const ConvolutionPlan>> plans;
    for (const Flaw flaw : {Flaw::fails, Flaw::zero, Flaw::none, Flaw::short_, Flaw::inexact, Flaw::notANumber})
      plans.push_back(std::make_shared<HostPlan>(c, flaw));
    const auto best = fastest(c, plans);
    return best ? plans[*best] : nullptr;
  }

 private:
  bool autotune_;
};

}  // namespace

std::unique_ptr<ConvolutionEngine> makeEngine(const EngineOptions& options) {
  return std::make_unique<HostEngine>(options.autotune);
}

}  // namespace seresnet::cuda
