#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>

#include "conv_algorithm.h"
#include "cpu/device/dnnl_adapter.h"
#include "cpu/program/layout.h"

namespace seresnet::cpu {

namespace {

// Numbers without a pattern, in [-1, 1).
void fillWithNoise(HostMemory& memory) {
  auto* data = memory.data<float>();
  uint32_t state = 1;
  for (size_t i = 0; i < memory.bytes() / sizeof(float); ++i) {
    state = state * 1664525 + 1013904223;
    data[i] = static_cast<float>(state >> 8) / (1 << 23) - 1.F;
  }
}

// What all candidates read: images as their neighbours have them, channels-last.
struct Operands {
  HostMemory x, residual, bias;

  Operands(Builder& b, const ConvolutionOperands& given)
      : x(b.input(0).bytes()), residual(given.residual < 0 ? 0 : b.output().bytes()),
        bias(given.bias < 0 ? 0 : b.input(static_cast<size_t>(given.bias)).bytes()) {
    for (HostMemory* memory : {&x, &residual, &bias}) fillWithNoise(*memory);
  }
};

// One candidate on memory of its own.
class Trial {
 public:
  Trial(Builder& b, Operands& operands, const ConvolutionCandidate& candidate)
      : operands_(operands), candidate_(candidate), reorders_(candidate.layout != Layout::channelsLast),
        ownX_(reorders_ ? operands.x.bytes() : 0), ownY_(reorders_ ? b.output().bytes() : 0), y_(b.output().bytes()),
        scratch_(candidate.scratchBytes) {
    const HostMemory& plain = *b.constant(1);
    if (candidate.order) weights_ = orderedWeights(candidate, plain);
    places_ = {reorders_ ? ownX_.data() : operands.x.data(), weights_ ? weights_->data() : plain.data(),
               operands.bias.bytes() > 0 ? operands.bias.data<float>() : nullptr, nullptr,
               reorders_ ? ownY_.data() : y_.data(), scratch_.data()};
    if (!reorders_) return;
    addresses_ = {operands.x.data(), ownX_.data(), operands.residual.data(), ownY_.data(), y_.data()};
    const Layout last = Layout::channelsLast;
    in_ = convertImages(b.input(0).shape, last, candidate.layout, 0, 1);
    if (operands.residual.bytes() > 0) residualIn_ = convertImages(b.output().shape, last, candidate.layout, 2, 3);
    out_ = convertImages(b.output().shape, candidate.layout, last, 3, 4);
  }

  // With the reorders of an image that comes and goes as channels-last.
  double seconds() {
    const HostMemory& residual = operands_.residual;
    if (!reorders_ && residual.bytes() > 0) std::memcpy(y_.data(), residual.data(), residual.bytes());
    const Pointers pointers(addresses_);
    const auto start = std::chrono::steady_clock::now();
    if (in_) in_(pointers);
    if (residualIn_) residualIn_(pointers);
    candidate_.run(places_);
    if (out_) out_(pointers);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  const HostMemory& result() const { return y_; }

 private:
  Operands& operands_;
  const ConvolutionCandidate& candidate_;
  bool reorders_;
  HostMemory ownX_, ownY_, y_, scratch_;
  std::shared_ptr<HostMemory> weights_;
  ConvolutionPlaces places_{};
  std::vector<char*> addresses_;
  Kernel in_, residualIn_, out_;
};

double relativeError(const HostMemory& got, const HostMemory& wanted) {
  const auto* ours = got.data<float>();
  const auto* theirs = wanted.data<float>();
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < wanted.bytes() / sizeof(float); ++i) {
    const double d = static_cast<double>(ours[i]) - theirs[i];
    difference += d * d;
    norm += static_cast<double>(theirs[i]) * theirs[i];
  }
  return norm == 0 ? 0 : std::sqrt(difference / norm);
}

// The index of the fastest of the candidates that agree with the first.
size_t race(Builder& b, const ConvolutionOperands& given, const std::vector<ConvolutionCandidate>& candidates) {
  constexpr double tolerance = 1e-5;
  constexpr int rounds = 5;
  constexpr double enough = 0.2;  // seconds
  constexpr double hopeless = 1.3;  // times the least so far: not timed again
  Operands operands(b, given);
  std::vector<std::unique_ptr<Trial>> trials;
  std::vector<double> least(candidates.size(), std::numeric_limits<double>::infinity());
  std::vector<bool> agrees;
  for (const ConvolutionCandidate& candidate : candidates) {
    Trial& trial = *trials.emplace_back(std::make_unique<Trial>(b, operands, candidate));
    trial.seconds();  // and touches its memory
    agrees.push_back(relativeError(trial.result(), trials[0]->result()) <= tolerance);
  }
  double spent = 0;
  for (int round = 0; round < rounds && spent < enough; ++round) {
    const double limit = hopeless * *std::min_element(least.begin(), least.end());
    for (size_t i = 0; i < trials.size(); ++i) {
      if (!agrees[i] || least[i] > limit) continue;
      const double seconds = trials[i]->seconds();
      least[i] = std::min(least[i], seconds);
      spent += seconds;
    }
  }
  return static_cast<size_t>(std::min_element(least.begin(), least.end()) - least.begin());
}

// The weights, which hardly matter to the error, are not in it, nor are the threads, whose number must not change a
// result.
std::string keyOf(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g,
                  const std::vector<ConvolutionCandidate>& candidates) {
  std::string key = format(b.input(0).shape) + format(b.input(1).shape);
  for (const auto* pair : {&g.stride, &g.padding, &g.dilation}) key += format(*pair);
  if (operands.bias >= 0) key += " bias";
  if (operands.residual >= 0) key += " residual";
  if (operands.relu) key += " relu";
  for (const ConvolutionCandidate& candidate : candidates) key += ", " + candidate.implementation;
  return key;
}

}  // namespace

const ConvolutionCandidate& fastest(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g,
                                    const std::vector<ConvolutionCandidate>& candidates) {
  if (candidates.size() == 1) return candidates[0];
  // of the process, not of a device: workers that compute the same get the same. One race at a time, for a fair one.
  static std::mutex mutex;
  static std::map<std::string, size_t> decided;
  const std::lock_guard lock(mutex);
  const std::string key = keyOf(b, operands, g, candidates);
  auto known = decided.find(key);
  if (known == decided.end()) known = decided.emplace(key, race(b, operands, candidates)).first;
  return candidates[known->second];
}

}  // namespace seresnet::cpu
