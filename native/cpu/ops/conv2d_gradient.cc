#include <string_view>
#include <unordered_map>

#include "cpu/convolution/conv_algorithm.h"
#include "cpu/convolution/winograd.h"
#include "cpu/device/dnnl_adapter.h"
#include "ops.h"

namespace seresnet::cpu {

namespace {

using dnnl::memory;
constexpr auto f32 = memory::data_type::f32;

memory::dims weightDims(const ops::Conv2dGradient& c) {
  if (c.geometry.groups == 1) return c.w;
  return {c.geometry.groups, c.w[0] / c.geometry.groups, c.w[1], c.w[2], c.w[3]};
}

memory::desc plainWeights(const ops::Conv2dGradient& c) {
  return {weightDims(c), f32, c.geometry.groups == 1 ? memory::format_tag::oihw : memory::format_tag::goihw};
}

template <typename Backward>
typename Backward::primitive_desc describe(Builder& b, const ops::Conv2dGradient& c, Layout& layout) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto attempt = [&](Layout which) {
    const auto tag = which == Layout::plain ? memory::format_tag::nchw : memory::format_tag::nhwc;
    ConvolutionShape shape;
    shape.source = memory::desc(c.x, f32, tag);
    shape.weights = memory::desc(weightDims(c), f32, memory::format_tag::any);
    shape.destination = memory::desc(c.y, f32, tag);
    shape.strides = c.geometry.stride;
    shape.dilation = {c.geometry.dilation[0] - 1, c.geometry.dilation[1] - 1};
    shape.padding = c.geometry.padding;
    return describeBackward<Backward>(b.onednn(), shape, attributes);
  };
  layout = Layout::channelsLast;
  auto best = attempt(layout);
  if (std::string_view(best.impl_info_str()).substr(0, 3) != "ref") return best;
  auto other = attempt(Layout::plain);
  if (std::string_view(other.impl_info_str()).substr(0, 3) == "ref") return best;
  layout = Layout::plain;
  return other;
}

// A kernel that runs a primitive on buffers.
template <typename Primitive>
Kernel primitiveKernel(Onednn& onednn, Primitive primitive, const std::unordered_map<int, std::pair<memory::desc, BufferId>>& operands) {
  std::unordered_map<int, memory> arguments;
  std::unordered_map<int, BufferId> ids;
  for (const auto& [argument, operand] : operands) {
    arguments.emplace(argument, memory(operand.first, onednn.engine, nullptr));
    ids.emplace(argument, operand.second);
  }
  return [=, &onednn](const Pointers& p) mutable {
    for (auto& [argument, memory] : arguments) memory.set_data_handle(p.at<void>(ids.at(argument)));
    primitive.execute(onednn.stream, arguments);
    onednn.stream.wait();
  };
}

Kernel reorderKernel(Onednn& onednn, const memory::desc& from, BufferId source, const memory::desc& to, BufferId target) {
  const dnnl::reorder reorder(dnnl::reorder::primitive_desc(onednn.engine, from, onednn.engine, to));
  return primitiveKernel(onednn, reorder, {{DNNL_ARG_FROM, {from, source}}, {DNNL_ARG_TO, {to, target}}});
}

// The side of the tiles in which Winograd's algorithm is to do it, or 0.
int64_t tileOf(Builder& b, const ops::Conv2dGradient& c) {
  return tilesUntimed(c.w, c.y) ? tileOf(b, c.w, c.geometry) : 0;
}

// The gradient of a 3x3 convolution's input is one itself, of dy with the weights turned round.
void winogradInputGradient(Builder& b, const ops::Conv2dGradient& c, int64_t tile) {
  const std::vector<int64_t>& padding = c.geometry.padding;
  const auto turned = std::make_shared<WinogradConvolution>(tile, c.y, c.x, std::vector{2 - padding[0], 2 - padding[1]});
  const BufferId given = b.read(1);
  const BufferId weights = b.scratch(turned->transformedBytes());
  b.emit("weights", [=](const Pointers& p) { turned->transformWeights(p.at(given), p.at(weights), true); });
  b.touch(weights);
  const BufferId dy = b.read(0, Layout::channelsLast);
  const BufferId work = b.scratch(turned->scratchBytes());
  const BufferId dx = b.write(0, Layout::channelsLast);
  b.emit(turned->name(),
         [=](const Pointers& p) { turned->run(p.at(dy), p.at(weights), {}, p.at(dx), p.at(work)); });
}

void inputGradient(Builder& b, const ops::Conv2dGradient& c) {
  const bool fits = c.geometry.padding[0] <= 2 && c.geometry.padding[1] <= 2;
  if (const int64_t tile = fits ? tileOf(b, c) : 0; tile > 0) return winogradInputGradient(b, c, tile);
  Layout layout;
  const auto pd = describe<dnnl::convolution_backward_data>(b, c, layout);
  Onednn& onednn = b.onednn();
  const memory::desc given = plainWeights(c);
  BufferId weights = b.read(1);
  if (given != pd.weights_desc()) {
    const BufferId ordered = b.scratch(pd.weights_desc().get_size());
    b.emit("weights", reorderKernel(onednn, given, weights, pd.weights_desc(), ordered));
    weights = b.touch(ordered);
  }
  const BufferId dy = b.read(0, layout);
  const BufferId work = b.scratch(pd.scratchpad_desc().get_size());
  const BufferId dx = b.write(0, layout);
  b.emit(pd.impl_info_str(), primitiveKernel(onednn, dnnl::convolution_backward_data(pd),
                                             {{DNNL_ARG_DIFF_DST, {pd.diff_dst_desc(), dy}},
                                              {DNNL_ARG_WEIGHTS, {pd.weights_desc(), weights}},
                                              {DNNL_ARG_DIFF_SRC, {pd.diff_src_desc(), dx}},
                                              {DNNL_ARG_SCRATCHPAD, {pd.scratchpad_desc(), work}}}));
}

void winogradWeightGradient(Builder& b, const ops::Conv2dGradient& c, int64_t tile) {
  const auto forward = std::make_shared<WinogradConvolution>(tile, c.x, c.y, c.geometry.padding);
  const BufferId x = b.read(0, Layout::channelsLast);
  const BufferId dy = b.read(1, Layout::channelsLast);
  const BufferId work = b.scratch(forward->weightGradientScratchBytes());
  const BufferId dw = b.write(0);
  b.emit(forward->name(),
         [=](const Pointers& p) { forward->weightGradient(p.at(x), p.at(dy), p.at(dw), p.at(work)); });
}

void weightGradient(Builder& b, const ops::Conv2dGradient& c) {
  if (const int64_t tile = tileOf(b, c); tile > 0) return winogradWeightGradient(b, c, tile);
  Layout layout;
  const auto pd = describe<dnnl::convolution_backward_weights>(b, c, layout);
  Onednn& onednn = b.onednn();
  const memory::desc wanted = plainWeights(c);
  const memory::desc made = pd.diff_weights_desc();
  const BufferId x = b.read(0, layout);
  const BufferId dy = b.read(1, layout);
  const BufferId work = b.scratch(pd.scratchpad_desc().get_size());
  const BufferId dw = made == wanted ? b.write(0) : b.scratch(made.get_size());
  b.emit(pd.impl_info_str(), primitiveKernel(onednn, dnnl::convolution_backward_weights(pd),
                                             {{DNNL_ARG_SRC, {pd.src_desc(), x}},
                                              {DNNL_ARG_DIFF_DST, {pd.diff_dst_desc(), dy}},
                                              {DNNL_ARG_DIFF_WEIGHTS, {made, dw}},
                                              {DNNL_ARG_SCRATCHPAD, {pd.scratchpad_desc(), work}}}));
  if (made == wanted) return;
  b.touch(dw);
  const BufferId plain = b.write(0);
  b.emit("weights", reorderKernel(onednn, made, dw, wanted, plain));
}

}  // namespace

// dL/dx from dy and the weight; dL/dweight from x and dy.
void conv2dGradient(Builder& b) {
  const ops::Conv2dGradient c(b);
  try {
    if (c.input) inputGradient(b, c);
    else weightGradient(b, c);
  } catch (const dnnl::error& error) {
    throw Error(b.step().op, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace seresnet::cpu
