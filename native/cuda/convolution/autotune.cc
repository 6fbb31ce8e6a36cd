#include "autotune.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "convolution_exact.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/trial.h"
#include "runtime/errors.h"

namespace seresnet::cuda {

namespace {

size_t elementBytes(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

// Largest relative error of a result, ‖out - ref‖ / ‖ref‖, which is some ten times what rounding it costs: sums that are not
// float32, and transforms that lose digits (Winograd's in half precision), are over it.
double limitOf(const Convolution& c) {
  if (c.dtype == DType::bfloat16) return 1e-2;
  if (c.dtype == DType::float16) return 2e-3;
  return c.tf32 ? 1e-3 : 2e-5;
}

// Device memory that no pool knows of; freeing it waits for the device.
struct Scratch {
  explicit Scratch(size_t size) : data(gpu::allocate(std::max<size_t>(size, 1))) {}
  ~Scratch() { gpu::free(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data;
};

// One trial of a convolution's plans.
class Trial {
 public:
  Trial(const Convolution& c, size_t workspace)
      : c_(c), count_(elementsOf(c, resultOf(c))), judged_(bytes(count_)), sums_(sumBytes()), work_(workspace) {
    for (const Operand operand : operands) all_.push_back(std::make_unique<Scratch>(bytes(elementsOf(c, operand))));
    pointers_ = {at(Operand::x), at(Operand::w), at(Operand::y), at(Operand::gate), at(Operand::bias), at(Operand::residual),
                 work_.data};
  }

  bool hasRoom() const {
    return judged_.data != nullptr && sums_.data != nullptr && work_.data != nullptr &&
           std::all_of(all_.begin(), all_.end(), [](const auto& part) { return part->data != nullptr; });
  }

  void fill() {
    for (const Operand operand : operands)
      launchNoise(stream_.get(), {at(operand), c_.dtype, elementsOf(c_, operand), seedOf(operand)});
  }

  // Milliseconds that a plan takes; none where its result is wrong or it refuses to run.
  std::optional<float> time(const ConvolutionPlan& plan) {
    const bool ran = runs(plan, [&] {
      launchFill(stream_.get(), {result(), c_.dtype, count_, std::numeric_limits<double>::quiet_NaN()});
      plan.run(stream_.get(), pointers_);
    });
    if (!ran || !isRight()) return std::nullopt;
    constexpr int repeats = 5;
    const bool ranAgain = runs(plan, [&] {
      gpu::record(from_.get(), stream_.get());
      for (int i = 0; i < repeats; ++i) plan.run(stream_.get(), pointers_);
      gpu::record(to_.get(), stream_.get());
    });
    return ranAgain ? std::optional<float>(gpu::milliseconds(from_.get(), to_.get()) / repeats) : std::nullopt;
  }

 private:
  static constexpr Operand operands[] = {Operand::x,    Operand::w,    Operand::y,
                                         Operand::gate, Operand::bias, Operand::residual};

  // Whether the plan does not refuse to run. Throws Error where the device is lost by it.
  template <typename Work>
  bool runs(const ConvolutionPlan& plan, const Work& work) {
    bool refused = false;
    try {
      work();
    } catch (const Error&) {
      refused = true;  // there are others
    }
    try {
      gpu::synchronize(stream_.get());
    } catch (const Error& error) {
      throw Error(error.call(), error.why() + " (in a trial of " + plan.name() + " for " + c_.text() + ")", error.kind());
    }
    return !refused;
  }

  size_t bytes(int64_t count) const { return static_cast<size_t>(count) * elementBytes(c_.dtype); }
  size_t sumBytes() const { return static_cast<size_t>(differenceParts(count_)) * 2 * sizeof(float); }
  void* at(Operand operand) const { return all_[static_cast<size_t>(operand)]->data; }
  void* result() const { return at(resultOf(c_)); }
  static uint32_t seedOf(Operand operand) { return static_cast<uint32_t>(operand) + 1; }

  bool isRight() {
    if (judge_) return difference() <= limitOf(c_);
    judge_ = samplesAreRight();
    if (judge_) gpu::copyOnDevice(stream_.get(), judged_.data, result(), bytes(count_));
    return judge_;
  }

  // Of the whole result, from the judge's.
  double difference() {
    std::vector<float> sums(sumBytes() / sizeof(float));
    auto* device = static_cast<float*>(sums_.data);
    launchDifference(stream_.get(), {result(), judged_.data, c_.dtype, count_, device});
    gpu::copyToHost(stream_.get(), sums.data(), device, sumBytes());
    gpu::synchronize(stream_.get());
    double apart = 0, norm = 0;
    for (size_t i = 0; i < sums.size(); i += 2) {
      apart += sums[i];
      norm += sums[i + 1];
    }
    return norm == 0 ? std::sqrt(apart) : std::sqrt(apart / norm);
  }

  // Some elements, first and last among them, worked out here from the same noise.
  bool samplesAreRight() {
    constexpr int64_t affordable = int64_t{1} << 23;
    const int64_t samples = std::min(count_, std::clamp<int64_t>(affordable / productsOf(c_), 4, 64));
    const auto noise = [](Operand operand, int64_t i) { return double{noiseAt(seedOf(operand), i)}; };
    const Scratch floats(static_cast<size_t>(samples) * sizeof(float));
    if (floats.data == nullptr) return false;
    std::vector<int64_t> places;
    for (int64_t i = 0; i < samples; ++i) {
      const int64_t place = samples == 1 ? 0 : (count_ - 1) / (samples - 1) * i;
      places.push_back(i == samples - 1 ? count_ - 1 : place);
      const void* element = static_cast<const char*>(result()) + bytes(places.back());
      launchCast(stream_.get(), {element, c_.dtype, static_cast<float*>(floats.data) + i, DType::float32, 1});
    }
    std::vector<float> got(static_cast<size_t>(samples));
    gpu::copyToHost(stream_.get(), got.data(), floats.data, got.size() * sizeof(float));
    gpu::synchronize(stream_.get());
    double apart = 0, norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double exact = exactElement(c_, places[i], noise);
      apart += (got[i] - exact) * (got[i] - exact);
      norm += exact * exact;
    }
    // where all samples are 0 by chance, they must be it exactly
    return apart <= limitOf(c_) * limitOf(c_) * norm;
  }

  Convolution c_;
  int64_t count_;
  std::shared_ptr<CUstream_st> stream_ = gpu::makeStream();
  std::shared_ptr<CUevent_st> from_ = gpu::makeEvent(true), to_ = gpu::makeEvent(true);
  Scratch judged_, sums_, work_;
  std::vector<std::unique_ptr<Scratch>> all_;
  ConvolutionPointers pointers_;
  bool judge_ = false;
};

}  // namespace

std::optional<size_t> fastest(const Convolution& convolution,
                              const std::vector<std::shared_ptr<const ConvolutionPlan>>& plans) {
  size_t workspace = 0;
  for (const auto& plan : plans) workspace = std::max(workspace, plan->workspace());
  Trial trial(convolution, workspace);
  if (!trial.hasRoom()) return plans.empty() ? std::nullopt : std::optional<size_t>(0);
  trial.fill();
  std::optional<size_t> best;
  float least = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    const std::optional<float> time = trial.time(*plans[i]);
    if (!time || (best && *time >= least)) continue;
    best = i;
    least = *time;
  }
  return best;
}

}  // namespace seresnet::cuda
