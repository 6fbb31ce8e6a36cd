#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "cpu/convolution/conv_algorithm.h"
#include "cpu/convolution/linear_squeeze.h"
#include "cpu/convolution/relu_convolution.h"
#include "cpu/device/dnnl_adapter.h"
#include "ops.h"
#include "squeeze_excite.h"

namespace seresnet::cpu {

namespace {

using dnnl::memory;

constexpr auto f32 = memory::data_type::f32;
constexpr int64_t run = 8;  // outputs that lie together in every order of weights that oneDNN likes

// Where the gate is applied.
enum class Gate {
  weights,  // to the weights, before each image: the convolution then adds the residual itself
  postOp,   // by the convolution itself, to its result
  image,    // to the convolution's result, along with the residual and ReLU
  late,     // the same, but squeezed from that result: where it cannot be known before
};

ConvolutionOperands convolutionOf(const ops::GatedConv2d& found) { return {found.bias, found.residual, found.relu, true}; }

LinearSqueeze squeezeOf(Builder& b, const ops::GatedConv2d& found) {
  const Shape& x = b.input(0).shape;
  const Shape& w = b.input(1).shape;
  const Shape& y = b.output().shape;
  return {x[0], x[2], x[3], x[1], y[2], y[3], y[1], found.hidden, {w[2], w[3]}, found.geometry.padding,
          found.geometry.dilation};
}

// A convolution of one image with the tail that is left to it.
std::optional<ReluConvolution> describeOne(Builder& b, const ops::GatedConv2d& found, const LinearSqueeze& s, Gate gate) {
  constexpr auto nhwc = memory::format_tag::nhwc;
  const auto post = [=, outputs = s.outputs, residual = found.residual >= 0] {
    dnnl::post_ops all;
    if (gate == Gate::postOp)
      all.append_binary(dnnl::algorithm::binary_mul, memory::desc({1, outputs, 1, 1}, f32, nhwc));
    if (gate != Gate::image && residual) all.append_sum(1.F);
    return all;
  };
  ConvolutionShape c;
  c.source = memory::desc({1, s.channels, s.height, s.width}, f32, nhwc);
  c.weights = memory::desc(b.input(1).shape, f32, memory::format_tag::any);
  c.hasBias = found.bias >= 0;
  if (c.hasBias) c.bias = memory::desc({s.outputs}, f32, memory::format_tag::x);
  c.destination = memory::desc({1, s.outputs, s.outHeight, s.outWidth}, f32, nhwc);
  c.strides = {1, 1};
  c.dilation = {s.dilation[0] - 1, s.dilation[1] - 1};
  c.padding = s.padding;
  try {
    return ReluConvolution(b.onednn(), dnnl::algorithm::convolution_direct, c, post, found.relu && gate != Gate::image);
  } catch (const dnnl::error&) {
    return std::nullopt;
  }
}

bool isJit(const dnnl::convolution_forward::primitive_desc& pd) {
  const std::string_view name = pd.impl_info_str();
  return name.find("ref") == std::string_view::npos && name.find("gemm") == std::string_view::npos;
}

std::shared_ptr<HostMemory> reordered(Onednn& onednn, const memory::desc& given, void* contents,
                                      const memory::desc& wanted) {
  auto ordered = std::make_shared<HostMemory>(wanted.get_size());
  memory from(given, onednn.engine, contents);
  memory to(wanted, onednn.engine, ordered->data());
  dnnl::reorder(from, to).execute(onednn.stream, from, to);
  onednn.stream.wait();
  return ordered;
}

// For each run of ordered weights the output channel of its first, found by ordering the channels' numbers in the
// weights' stead, so that no order has to be known. Null where neighbours do not belong to neighbouring channels.
std::shared_ptr<HostMemory> channelsOfRuns(Onednn& onednn, const memory::desc& given, const memory::desc& wanted,
                                           int64_t outputs) {
  const HostMemory numbers(given.get_size());
  const int64_t count = static_cast<int64_t>(given.get_size() / sizeof(float));
  for (int64_t i = 0; i < count; ++i) numbers.data<float>()[i] = static_cast<float>(i / (count / outputs));
  const auto ordered = reordered(onednn, given, numbers.data<void>(), wanted);
  const int64_t runs = static_cast<int64_t>(wanted.get_size() / sizeof(float)) / run;
  if (runs * run * static_cast<int64_t>(sizeof(float)) != static_cast<int64_t>(wanted.get_size())) return nullptr;
  auto channels = std::make_shared<HostMemory>(static_cast<size_t>(runs) * sizeof(int32_t));
  for (int64_t r = 0; r < runs; ++r) {
    const float* at = ordered->data<float>() + r * run;
    const auto first = static_cast<int64_t>(at[0]);
    for (int64_t i = 1; i < run; ++i)
      if (at[i] != static_cast<float>(first + i) && (at[i] != 0 || first + i < outputs)) return nullptr;
    channels->data<int32_t>()[r] = static_cast<int32_t>(first);
  }
  return channels;
}

SERESNET_CLONES void scaleRuns(const float* from, const int32_t* channels, const float* gate, float* to, int64_t runs) {
  for (int64_t r = 0; r < runs; ++r)
    for (int64_t i = 0; i < run; ++i) to[r * run + i] = from[r * run + i] * gate[channels[r] + i];
}

// What the step needs beside its own operands, by how it is done.
struct Convolution {
  Gate gate;
  ReluConvolution primitive;
  std::shared_ptr<HostMemory> weights, channels;
};

// The way that moves fewer bytes. Images: the result is written and read once more. Weights: so are they.
std::optional<Convolution> choose(Builder& b, const ops::GatedConv2d& found, const LinearSqueeze& s) {
  const std::string wanted = b.step().attributes.count("gate") > 0 ? b.step().text("gate") : "";
  const auto given = memory::desc(b.input(1).shape, f32, memory::format_tag::oihw);
  const auto make = [&](Gate gate) -> std::optional<Convolution> {
    const auto primitive = describeOne(b, found, s, gate);
    if (!primitive) return std::nullopt;
    const auto& pd = primitive->description();
    if (wanted.empty() && !isJit(pd)) return std::nullopt;
    Convolution c{gate, *primitive, reordered(b.onednn(), given, b.constant(1)->data<void>(), pd.weights_desc()),
                  nullptr};
    if (gate == Gate::weights) {
      c.channels = channelsOfRuns(b.onednn(), given, pd.weights_desc(), s.outputs);
      if (!c.channels) return std::nullopt;
    }
    return c;
  };
  if (wanted == "weights") return make(Gate::weights);
  if (wanted == "post-op") return make(Gate::postOp);
  if (wanted == "image") return make(Gate::image);
  b.expect(wanted.empty(), "a gate on weights, post-op, image or late");
  const int64_t weights = s.outputs * s.channels * s.taps();
  const int64_t image = s.outputs * s.outHeight * s.outWidth;
  if (auto own = make(Gate::postOp)) return own;
  if (weights < image)
    if (auto scaled = make(Gate::weights)) return scaled;
  return make(Gate::image);
}

std::string report(const Convolution& c, const LinearSqueeze& s) {
  const double image = 2.0 * static_cast<double>(s.outputs * s.outHeight * s.outWidth * s.images) * sizeof(float) / 1e6;
  const double weights = 2.0 * static_cast<double>(c.weights->bytes() * s.images) / 1e6;
  char text[160];
  if (c.gate == Gate::weights)
    std::snprintf(text, sizeof text, "%s, gate on the weights: %.2f MB for the image's %.2f",
                  c.primitive.description().impl_info_str(), weights, image);
  else if (c.gate == Gate::postOp)
    std::snprintf(text, sizeof text, "%s, gate as post-op: saves %.2f MB", c.primitive.description().impl_info_str(), image);
  else
    std::snprintf(text, sizeof text, "%s, gate on the image: %.2f MB for the weights' %.2f",
                  c.primitive.description().impl_info_str(), image, weights);
  return text;
}

// The convolution's kernel, image by image: each is in the cache still when its turn for the gate comes.
void emitGated(Builder& b, const ops::GatedConv2d& found, const LinearSqueeze& s, const Convolution& c, BufferId gates) {
  const auto& pd = c.primitive.description();
  b.losesNaN |= c.primitive.losesNaN();
  const Layout layout = Layout::channelsLast;
  const BufferId x = b.read(0, layout);
  b.touch(gates);
  const BufferId weights = b.keep(c.weights);
  const BufferId bias = found.bias >= 0 ? b.read(2) : -1;
  const auto residualInput = static_cast<size_t>(std::max(found.residual, 0));
  const BufferId residual = found.residual >= 0 ? b.read(residualInput, layout) : -1;
  BufferId y = residual >= 0 ? b.overwrite(residualInput, layout) : -1;
  if (y < 0) y = b.write(0, layout);
  const BufferId scratchpad =
      pd.scratchpad_desc().get_size() > 0 ? b.scratch(pd.scratchpad_desc().get_size()) : -1;
  const BufferId channels = c.channels ? b.keep(c.channels) : -1;
  const BufferId scaled = c.channels ? b.scratch(c.weights->bytes()) : -1;
  const BufferId scaledBias = c.channels && bias >= 0 ? b.scratch(static_cast<size_t>(s.outputs) * sizeof(float)) : -1;
  const int64_t xSize = s.channels * s.height * s.width;
  const int64_t plane = s.outHeight * s.outWidth;
  const int64_t ySize = s.outputs * plane;
  const BufferId raw = c.gate == Gate::image ? b.scratch(static_cast<size_t>(ySize) * sizeof(float)) : -1;

  Onednn& onednn = b.onednn();
  std::unordered_map<int, memory> arguments;
  const auto argument = [&](int name, const memory::desc& desc) {
    arguments.emplace(name, memory(desc, onednn.engine, nullptr));
  };
  constexpr int postGate = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1;
  argument(DNNL_ARG_SRC, pd.src_desc());
  argument(DNNL_ARG_WEIGHTS, pd.weights_desc());
  if (bias >= 0) argument(DNNL_ARG_BIAS, pd.bias_desc());
  argument(DNNL_ARG_DST, pd.dst_desc());
  if (scratchpad >= 0) argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
  if (c.gate == Gate::postOp)
    argument(postGate, memory::desc({1, s.outputs, 1, 1}, f32, memory::format_tag::nhwc));
  const int64_t runs = static_cast<int64_t>(c.weights->bytes() / sizeof(float)) / run;
  b.emit(report(c, s), [=, &onednn, relu = found.relu, kind = c.gate,
                        primitive = c.primitive](const Pointers& p) mutable {
    const auto bind = [&](int name, void* address) { arguments.at(name).set_data_handle(address); };
    if (scratchpad >= 0) bind(DNNL_ARG_SCRATCHPAD, p.at<void>(scratchpad));
    for (int64_t n = 0; n < s.images; ++n) {
      float* gate = p.at(gates) + n * s.outputs;
      float* to = p.at(y) + n * ySize;
      const float* shortcut = residual < 0 ? nullptr : p.at(residual) + n * ySize;
      const float* w = p.at(weights);
      const float* offset = p.maybe(bias);
      if (kind == Gate::weights) {
        parallel(runs, 4096, [&](int64_t first, int64_t last) {
          scaleRuns(w + first * run, p.at<int32_t>(channels) + first, gate, p.at(scaled) + first * run, last - first);
        });
        w = p.at(scaled);
        if (bias >= 0) {
          for (int64_t o = 0; o < s.outputs; ++o) p.at(scaledBias)[o] = offset[o] * gate[o];
          offset = p.at(scaledBias);
        }
      }
      if (kind != Gate::image && shortcut != nullptr && shortcut != to)
        std::memcpy(to, shortcut, static_cast<size_t>(ySize) * sizeof(float));
      bind(DNNL_ARG_SRC, p.at(x) + n * xSize);
      bind(DNNL_ARG_WEIGHTS, const_cast<float*>(w));
      if (bias >= 0) bind(DNNL_ARG_BIAS, const_cast<float*>(offset));
      bind(DNNL_ARG_DST, kind == Gate::image ? p.at(raw) : to);
      if (kind == Gate::postOp) bind(postGate, gate);
      primitive.run(onednn.stream, arguments, p.keepsNaN());
      if (kind == Gate::image) applyGate(p.at(raw), gate, shortcut, relu, to, plane, s.outputs);
    }
  });
}

// The two steps it stands for.
void buildLate(Builder& b, const ops::GatedConv2d& found) {
  const Step& step = b.step();
  const uint32_t between = b.addSlot(Slot(b.output()));
  Step convolution{"conv2d", {}, {}, {}};
  Step gating{"squeeze_excite", {}, {between}, step.outputs};
  for (const char* name : {"stride", "padding", "dilation", "groups"})
    convolution.attributes.emplace(name, step.attributes.at(name));
  for (const char* name : {"residual", "relu"}) gating.attributes.emplace(name, step.attributes.at(name));
  const auto middle = step.inputs.begin() + static_cast<int64_t>(found.excitation);
  convolution.inputs.assign(step.inputs.begin(), middle);
  convolution.outputs = {between};
  gating.inputs.insert(gating.inputs.end(), middle, step.inputs.end());
  b.build(convolution);
  b.build(gating);
}

bool knownEarly(Builder& b, const ops::GatedConv2d& found) {
  if (b.rounds()) return false;  // its kernels are float32
  const Step& step = b.step();
  const bool constants = b.constant(1) && (found.bias < 0 || b.constant(2)) && b.constant(found.excitation) &&
                         b.constant(found.excitation + 1);
  return constants && found.geometry.groups == 1 && found.geometry.stride == std::vector<int64_t>{1, 1} &&
         !(step.attributes.count("gate") > 0 && step.text("gate") == "late");
}

// A convolution of all images that applies the gate to its results as it stores them, where the fastest is one.
std::optional<ConvolutionCandidate> gating(Builder& b, const ops::GatedConv2d& found, const LinearSqueeze& s) {
  if (s.taps() == 1 || b.step().attributes.count("gate") > 0) return std::nullopt;
  ConvolutionCandidate candidate = chooseConvolution(b, convolutionOf(found), {{1, 1}, s.padding, s.dilation, 1});
  if (!candidate.gates) return std::nullopt;
  return candidate;
}

}  // namespace

// x, weight [O, C / groups, kh, kw], bias [O]?, W1 [R, O], b1 [R], W2 [O, R], b2 [O], residual?: squeeze_excite of
// conv2d. The attribute `gate` (weights, post-op, image or late) forces what is chosen otherwise.
void gatedConv2d(Builder& b) {
  const ops::GatedConv2d found(b);
  const LinearSqueeze s = squeezeOf(b, found);
  try {
    if (!knownEarly(b, found)) return buildLate(b, found);
    const auto own = gating(b, found, s);
    const auto convolution = own ? std::nullopt : choose(b, found, s);
    if (!own && !convolution) return buildLate(b, found);
    const size_t at = found.excitation;
    const float* w1 = b.constant(at)->data<float>();
    const float* bias = found.bias < 0 ? nullptr : b.constant(2)->data<float>();
    const BufferId x = b.read(0, Layout::channelsLast);
    const BufferId weights = b.keep(s.foldedWeights(b.constant(1)->data<float>(), w1));
    const BufferId offset = b.keep(s.foldedBias(bias, w1, b.constant(at + 1)->data<float>()));
    const BufferId w2 = b.read(at + 2);
    const BufferId b2 = b.read(at + 3);
    const BufferId work = b.scratch(s.workSize() * sizeof(float));
    b.emit("linear squeeze", [=](const Pointers& p) {
      s.run(p.at(x), p.at(weights), p.at(offset), p.at(w2), p.at(b2), p.at(work));
    });
    if (own)
      emitConvolution(b, convolutionOf(found), *own, work);
    else
      emitGated(b, found, s, *convolution, work);
  } catch (const dnnl::error& error) {
    throw Error(b.step().op, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace seresnet::cpu
