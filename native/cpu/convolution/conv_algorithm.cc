#include "conv_algorithm.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "cpu/device/dnnl_adapter.h"
#include "cpu/loops/parallel.h"
#include "cpu/loops/vector.h"
#include "relu_convolution.h"
#include "winograd.h"

namespace seresnet::cpu {

using dnnl::memory;

namespace {

// A weight's descriptor as the plan has it: [O, C / groups, kh, kw].
memory::desc plainWeights(const Shape& w, int64_t groups) {
  constexpr auto f32 = memory::data_type::f32;
  if (groups == 1) return {w, f32, memory::format_tag::oihw};
  return {{groups, w[0] / groups, w[1], w[2], w[3]}, f32, memory::format_tag::goihw};
}

// The current step's convolution in one layout by one of oneDNN's algorithms; throws dnnl::error where it has none.
ReluConvolution describeConvolution(Builder& b, const ConvolutionOperands& operands,
                                    const ConvolutionGeometry& g, Layout layout, dnnl::algorithm algorithm) {
  using Tag = memory::format_tag;
  const auto tag = layout == Layout::plain ? Tag::nchw : layout == Layout::blocked ? Tag::nChw16c : Tag::nhwc;
  const auto type = layout == Layout::bfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
  const Shape& w = b.input(1).shape;
  const auto post = [residual = operands.residual >= 0] {
    dnnl::post_ops all;
    if (residual) all.append_sum(1.F);
    return all;
  };
  ConvolutionShape c;
  c.source = memory::desc(b.input(0).shape, type, tag);
  c.weights = memory::desc(dimsOf(plainWeights(w, g.groups)), type, Tag::any);
  c.hasBias = operands.bias >= 0;
  if (c.hasBias) c.bias = memory::desc({w[0]}, memory::data_type::f32, Tag::x);
  c.destination = memory::desc(b.output().shape, type, tag);
  c.strides = g.stride;
  c.dilation = {g.dilation[0] - 1, g.dilation[1] - 1};
  c.padding = g.padding;
  return {b.onednn(), algorithm, c, post, operands.relu};
}

ConvolutionCandidate candidateOf(Onednn& onednn, const ReluConvolution& convolution, Layout layout,
                                 const memory::desc& given) {
  const auto& pd = convolution.description();
  ConvolutionCandidate candidate;
  candidate.implementation = pd.impl_info_str();
  candidate.layout = layout;
  candidate.losesNaN = convolution.losesNaN();
  candidate.winograd = candidate.implementation.find("wino") != std::string::npos;
  candidate.weightsBytes = pd.weights_desc().get_size();
  candidate.scratchBytes = pd.scratchpad_desc().get_size();
  if (given != pd.weights_desc()) {
    candidate.weightsOrder = nameOf(pd.weights_desc());
    memory from(given, onednn.engine, nullptr);
    memory to(pd.weights_desc(), onednn.engine, nullptr);
    candidate.order = [=, &onednn, reorder = dnnl::reorder()](const float* plain, void* ordered) mutable {
      if (!reorder) reorder = dnnl::reorder(from, to);
      from.set_data_handle(const_cast<float*>(plain));
      to.set_data_handle(ordered);
      reorder.execute(onednn.stream, from, to);
      onednn.stream.wait();
    };
  }
  std::unordered_map<int, memory> arguments;
  const auto bind = [&](int argument, const memory::desc& desc) {
    if (desc.get_size() > 0) arguments.emplace(argument, memory(desc, onednn.engine, nullptr));
  };
  bind(DNNL_ARG_SRC, pd.src_desc());
  bind(DNNL_ARG_WEIGHTS, pd.weights_desc());
  bind(DNNL_ARG_BIAS, pd.bias_desc());
  bind(DNNL_ARG_DST, pd.dst_desc());
  bind(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
  candidate.run = [=, &onednn, convolution = convolution](const ConvolutionPlaces& at) mutable {
    for (auto& [argument, memory] : arguments) {
      const void* place = argument == DNNL_ARG_SRC       ? at.x
                          : argument == DNNL_ARG_WEIGHTS ? at.weights
                          : argument == DNNL_ARG_BIAS    ? at.bias
                          : argument == DNNL_ARG_DST     ? at.y
                                                         : at.scratch;
      memory.set_data_handle(const_cast<void*>(place));
    }
    convolution.run(onednn.stream, arguments, at.keepsNaN);
  };
  return candidate;
}

// oneDNN's Winograd: 2.x has it for AVX-512 only, 3.x for nothing on x86.
std::optional<ReluConvolution> describeWinograd(Builder& b, const ConvolutionOperands& operands,
                                                const ConvolutionGeometry& g) {
  const Shape& w = b.input(1).shape;
  if (g.groups != 1 || w[0] % 16 != 0 || w[1] % 16 != 0) return std::nullopt;
  try {
    return describeConvolution(b, operands, g, Layout::blocked, dnnl::algorithm::convolution_winograd);
  } catch (const dnnl::error&) {
    return std::nullopt;
  }
}

std::optional<ConvolutionCandidate> winogradCandidate(Builder& b, const ConvolutionOperands& operands,
                                                   const ConvolutionGeometry& g) {
  const int64_t tile = tileOf(b, b.input(1).shape, g);
  if (tile == 0) return std::nullopt;
  const auto convolution = std::make_shared<WinogradConvolution>(tile, b.input(0).shape, b.output().shape, g.padding);
  ConvolutionCandidate candidate;
  candidate.implementation = convolution->name();
  candidate.layout = Layout::channelsLast;
  candidate.winograd = candidate.gates = true;
  candidate.weightsBytes = convolution->transformedBytes();
  candidate.weightsOrder = candidate.implementation;
  candidate.order = [=](const float* plain, void* ordered) {
    convolution->transformWeights(plain, static_cast<float*>(ordered));
  };
  candidate.scratchBytes = convolution->scratchBytes();
  candidate.run = [=, residual = operands.residual >= 0, relu = operands.relu](const ConvolutionPlaces& at) {
    auto* y = static_cast<float*>(at.y);
    convolution->run(static_cast<const float*>(at.x), static_cast<const float*>(at.weights),
                     {at.bias, at.gate, residual ? y : nullptr, relu}, y, static_cast<float*>(at.scratch));
  };
  return candidate;
}

// Winograd's algorithms for the current step.
std::vector<ConvolutionCandidate> winogradCandidates(Builder& b, const ConvolutionOperands& operands,
                                                     const ConvolutionGeometry& g) {
  std::vector<ConvolutionCandidate> found;
  const Shape& w = b.input(1).shape;
  const std::vector<int64_t> ones{1, 1};
  if (w[2] != 3 || w[3] != 3 || g.stride != ones || g.dilation != ones) return found;
  const auto convolution = operands.gated ? std::nullopt : describeWinograd(b, operands, g);  // which applies no gate
  if (convolution)
    found.push_back(candidateOf(b.onednn(), *convolution, Layout::blocked, plainWeights(w, g.groups)));
  if (auto winograd = winogradCandidate(b, operands, g)) found.push_back(std::move(*winograd));
  return found;
}

ConvolutionCandidate direct(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g,
                            Layout layout) {
  return candidateOf(b.onednn(), describeConvolution(b, operands, g, layout, dnnl::algorithm::convolution_direct),
                     layout, plainWeights(b.input(1).shape, g.groups));
}

ConvolutionCandidate chooseInFloat32(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g) {
  // channels-last unless only the plain layout has a fast implementation
  std::vector<ConvolutionCandidate> candidates{direct(b, operands, g, Layout::channelsLast)};
  if (candidates[0].isReference()) {
    ConvolutionCandidate other = direct(b, operands, g, Layout::plain);
    if (!other.isReference()) return other;
  }
  const std::string& wanted = b.options().convolution;
  if (wanted == "direct") return candidates[0];
  if (!b.isConstant(1) || wanted == "rule") {
    const bool tiles = tilesUntimed(b.input(1).shape, b.output().shape);
    if (auto winograd = tiles ? winogradCandidate(b, operands, g) : std::nullopt) return *winograd;
    return candidates[0];
  }
  std::vector<ConvolutionCandidate> winograd = winogradCandidates(b, operands, g);
  if (winograd.empty()) return candidates[0];
  if (wanted == "winograd") return fastest(b, operands, g, winograd);
  for (ConvolutionCandidate& candidate : winograd) candidates.push_back(std::move(candidate));
  return fastest(b, operands, g, candidates);
}

// A float32 candidate between numbers that bfloat16 can hold: its weights are rounded, and so is what it leaves.
ConvolutionCandidate rounding(ConvolutionCandidate exact, int64_t weights, int64_t results) {
  ConvolutionCandidate candidate = exact;
  candidate.implementation += ", rounded to bfloat16";
  candidate.weightsOrder = "bfloat16 " + exact.weightsOrder;
  candidate.order = [weights, order = std::move(exact.order)](const float* plain, void* ordered) {
    HostMemory rounded(static_cast<size_t>(weights) * sizeof(float));
    auto* numbers = order ? rounded.data<float>() : static_cast<float*>(ordered);
    std::copy_n(plain, weights, numbers);
    roundToBfloat16(numbers, weights);
    if (order) order(numbers, ordered);
  };
  candidate.run = [results, run = std::move(exact.run)](const ConvolutionPlaces& at) {
    run(at);
    parallel(results, 16384, [&](int64_t first, int64_t last) {
      roundToBfloat16(static_cast<float*>(at.y) + first, last - first);
    });
  };
  return candidate;
}

}  // namespace

int64_t tileOf(Builder& b, const Shape& w, const ConvolutionGeometry& g) {
  constexpr int64_t mostBytes = 4 << 20;  // of weights of tiles of 4x4, four times the given ones, beside images in a cache
  const std::vector<int64_t> ones{1, 1};
  if (w[2] != 3 || w[3] != 3 || g.groups != 1 || g.stride != ones || g.dilation != ones || simd() == nullptr ||
      b.options().convolution == "direct")
    return 0;
  return 36 * w[0] * w[1] * static_cast<int64_t>(sizeof(float)) <= mostBytes ? 4 : 2;
}

bool tilesUntimed(const Shape& w, const Shape& y) {
  constexpr int64_t leastChannels = 16;  // below, the images' transforms outweigh what they save
  constexpr int64_t leastPixels = 1024;  // below, the weights'
  return w[0] >= leastChannels && w[1] >= leastChannels && y[0] * y[2] * y[3] >= leastPixels;
}

bool ConvolutionCandidate::isReference() const { return implementation.substr(0, 3) == "ref"; }

bool ConvolutionCandidate::isSlow() const {
  return isReference() || implementation.find("gemm") != std::string::npos;
}

ConvolutionCandidate chooseConvolution(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g) {
  if (!b.rounds()) return chooseInFloat32(b, operands, g);
  try {
    ConvolutionCandidate own = direct(b, operands, g, Layout::bfloat16);
    if (!own.isSlow()) return own;
  } catch (const dnnl::error&) {
    // a shape, or a CPU, that oneDNN has only float32 kernels for
  }
  return rounding(chooseInFloat32(b, operands, g), b.input(1).size(), b.output().size());
}

std::shared_ptr<HostMemory> orderedWeights(const ConvolutionCandidate& candidate, const HostMemory& plain) {
  auto ordered = std::make_shared<HostMemory>(candidate.weightsBytes);
  candidate.order(plain.data<float>(), ordered->data<void>());
  return ordered;
}

}  // namespace seresnet::cpu
