#include "cudnn_support.h"

#include <chrono>

#include "runtime/errors.h"

#ifdef SERESNET_CUDNN_GRAPH
#include "cuda/cudnn/cudnn_graph.h"
#endif

namespace seresnet::cuda {

#ifdef SERESNET_CUDNN_GRAPH

std::vector<Support> cudnnSupport(const std::string& file, const std::string& json,
                                  const std::vector<Convolution>& convolutions) {
  using Clock = std::chrono::steady_clock;
  const cudnn::Api api(file);
  constexpr size_t leastVersion = 91100;
  if (api.getVersion() < leastVersion)
    throw Error("cudnnSupport", "expected cuDNN 9.11, got " + api.version());
  const cudnn::Target target{nullptr, cudnn::deviceProperties(api, json)};
  std::vector<Support> all;
  for (const Convolution& c : convolutions) {
    const Clock::time_point start = Clock::now();
    Support support;
    support.convolution = c.text();
    const cudnn::Descriptor graph = cudnn::operationGraph(api, target, c);
    for (const auto& candidate : cudnn::candidates(api, target, graph, {true, c.dtype == DType::float32 && !c.tf32})) {
      ++support.configurations;
      support.compiled += candidate.compiled;
      if (support.plan.empty() && cudnn::makePlan(api, target, candidate).get() != nullptr) support.plan = candidate.name;
    }
    support.milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    all.push_back(std::move(support));
  }
  return all;
}

#else

std::vector<Support> cudnnSupport(const std::string&, const std::string&, const std::vector<Convolution>&) {
  throw Error("cudnnSupport", "this build lacks CUDA's or cuDNN's headers");
}

#endif

}  // namespace seresnet::cuda
