#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "dnnl_adapter.h"
#include "ops.h"

namespace seresnet::cpu {

namespace {

using dnnl::memory;

struct Operands {
  int bias = -1;      // index among the step's inputs
  int residual = -1;  // the same
  bool relu = false;
};

Operands operands(Builder& b) {
  Operands found;
  const bool fused = b.step().op == "fused_conv2d";
  b.expectArity(2, fused ? 4 : 3);
  b.expectFloats();
  const bool hasResidual = fused && b.step().flag("residual");
  const bool hasBias = fused ? b.step().flag("bias") : b.inputs() == 3;
  b.expect(b.inputs() == size_t{2} + hasBias + hasResidual, "as many inputs as its attributes say");
  if (hasBias) found.bias = 2;
  if (hasResidual) found.residual = static_cast<int>(b.inputs()) - 1;
  found.relu = fused && b.step().flag("relu");
  return found;
}

struct Geometry {
  std::vector<int64_t> stride, padding, dilation;
  int64_t groups;
};

Geometry geometry(Builder& b, const Operands& operands) {
  const Step& step = b.step();
  Geometry g{step.integers("stride", 2, 1), step.integers("padding", 2, 0), step.integers("dilation", 2, 1),
             step.integer("groups", 1)};
  const Shape& x = b.input(0).shape;
  const Shape& w = b.input(1).shape;
  const Shape& y = b.output().shape;
  b.expect(x.size() == 4 && w.size() == 4 && y.size() == 4, "4-dimensional tensors");
  b.expect(w[1] * g.groups == x[1] && w[0] % g.groups == 0 && y[0] == x[0] && y[1] == w[0], "channels that fit");
  for (size_t i = 0; i < 2; ++i) {
    const int64_t free = x[2 + i] + 2 * g.padding[i] - g.dilation[i] * (w[2 + i] - 1) - 1;
    b.expect(free >= 0 && y[2 + i] == free / g.stride[i] + 1, "an image of the size the window gives");
  }
  if (operands.bias >= 0) b.expect(b.input(2).shape == Shape{w[0]}, "a bias for each channel");
  if (operands.residual >= 0)
    b.expect(b.input(static_cast<size_t>(operands.residual)).shape == y, "a residual of the output's shape");
  return g;
}

struct Choice {
  dnnl::convolution_forward::primitive_desc primitive;
  Layout layout;
};

bool slow(std::string_view implementation) { return implementation.substr(0, 3) == "ref"; }
bool isGemm(std::string_view implementation) { return implementation.find("gemm") != std::string_view::npos; }

// Channels-last unless only the plain layout has a fast implementation.
Choice choose(Builder& b, const Operands& operands, const Geometry& g) {
  const Shape& x = b.input(0).shape;
  const Shape& w = b.input(1).shape;
  constexpr auto f32 = memory::data_type::f32;
  dnnl::post_ops post;
  if (operands.residual >= 0) post.append_sum(1.F);
  if (operands.relu) appendRelu(post);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(post);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const memory::dims weights = g.groups == 1 ? memory::dims{w[0], w[1], w[2], w[3]}
                                             : memory::dims{g.groups, w[0] / g.groups, w[1], w[2], w[3]};
  const auto attempt = [&](Layout layout) {
    const auto tag = layout == Layout::plain ? memory::format_tag::nchw : memory::format_tag::nhwc;
    ConvolutionShape c;
    c.source = memory::desc(x, f32, tag);
    c.weights = memory::desc(weights, f32, memory::format_tag::any);
    c.hasBias = operands.bias >= 0;
    if (c.hasBias) c.bias = memory::desc({w[0]}, f32, memory::format_tag::x);
    c.destination = memory::desc(b.output().shape, f32, tag);
    c.strides = g.stride;
    c.dilation = {g.dilation[0] - 1, g.dilation[1] - 1};
    c.padding = g.padding;
    return Choice{describe(b.onednn(), dnnl::algorithm::convolution_direct, c, attributes), layout};
  };
  Choice best = attempt(Layout::channelsLast);
  if (!slow(best.primitive.impl_info_str())) return best;
  Choice other = attempt(Layout::plain);
  return slow(other.primitive.impl_info_str()) ? best : other;
}

// Groups of few channels have no fast implementation. Where several side by side may have one, builds the step with
// pairs of groups merged, their weights with zeros between them, until it does.
bool mergeGroups(Builder& b, const Geometry& g) {
  constexpr int64_t most = 16;  // channels of a group, the widest vector's
  const Shape w = b.input(1).shape;
  const int64_t in = w[1];
  const int64_t out = w[0] / g.groups;
  const HostMemory* weights = b.constant(1);
  if (weights == nullptr || g.groups % 2 != 0 || in >= most || out >= most || most % in != 0 || most % out != 0)
    return false;
  const int64_t taps = w[2] * w[3];
  auto merged = std::make_shared<HostMemory>(2 * weights->bytes());
  auto* to = merged->data<float>();
  std::fill_n(to, 2 * sizeOf(w), 0.F);
  for (int64_t o = 0; o < w[0]; ++o)
    std::copy_n(weights->data<float>() + o * in * taps, in * taps, to + (2 * o + o / out % 2) * in * taps);
  Step step = b.step();
  step.inputs[1] = b.addConstant({w[0], 2 * in, w[2], w[3]}, std::move(merged));
  step.attributes["groups"] = static_cast<double>(g.groups / 2);
  b.build(step);
  return true;
}

// The weights in the order the primitive wants: made at load where they are constant, in every run otherwise.
BufferId orderedWeights(Builder& b, const memory::desc& given, const memory::desc& wanted) {
  if (given == wanted) return b.read(1);
  Onednn& onednn = b.onednn();
  if (b.isConstant(1)) {
    return b.derived(1, nameOf(wanted), [&](const HostMemory& plain) {
      auto ordered = std::make_shared<HostMemory>(wanted.get_size());
      memory from(given, onednn.engine, plain.data());
      memory to(wanted, onednn.engine, ordered->data());
      dnnl::reorder(from, to).execute(onednn.stream, from, to);
      onednn.stream.wait();
      return ordered;
    });
  }
  const BufferId source = b.read(1);
  const BufferId target = b.scratch(wanted.get_size());
  memory from(given, onednn.engine, nullptr);
  memory to(wanted, onednn.engine, nullptr);
  const dnnl::reorder reorder(from, to);
  b.emit("weights", [=, &onednn](const Pointers& p) mutable {
    from.set_data_handle(p.at<void>(source));
    to.set_data_handle(p.at<void>(target));
    reorder.execute(onednn.stream, from, to);
    onednn.stream.wait();
  });
  return b.touch(target);
}

memory::desc plainWeights(const Shape& w, int64_t groups) {
  constexpr auto f32 = memory::data_type::f32;
  if (groups == 1) return {w, f32, memory::format_tag::oihw};
  return {{groups, w[0] / groups, w[1], w[2], w[3]}, f32, memory::format_tag::goihw};
}

void emitConvolution(Builder& b, const Operands& operands, const Choice& choice, BufferId weights) {
  const auto& pd = choice.primitive;
  const Layout layout = choice.layout;
  std::unordered_map<int, BufferId> ids;
  ids[DNNL_ARG_SRC] = b.read(0, layout);
  ids[DNNL_ARG_WEIGHTS] = weights;
  if (operands.bias >= 0) ids[DNNL_ARG_BIAS] = b.read(static_cast<size_t>(operands.bias));
  BufferId residual = -1;
  BufferId y = -1;
  if (operands.residual >= 0) {
    // the sum is added to what the destination holds: best in the residual's own place
    const auto at = static_cast<size_t>(operands.residual);
    residual = b.read(at, layout);
    y = b.overwrite(at, layout);
    if (y >= 0) residual = -1;
  }
  if (y < 0) y = b.write(0, layout);
  ids[DNNL_ARG_DST] = y;
  if (pd.scratchpad_desc().get_size() > 0) ids[DNNL_ARG_SCRATCHPAD] = b.scratch(pd.scratchpad_desc().get_size());

  Onednn& onednn = b.onednn();
  std::unordered_map<int, memory> arguments;
  for (const auto& [argument, id] : ids) {
    const memory::desc desc = argument == DNNL_ARG_SRC       ? pd.src_desc()
                              : argument == DNNL_ARG_WEIGHTS ? pd.weights_desc()
                              : argument == DNNL_ARG_BIAS    ? pd.bias_desc()
                              : argument == DNNL_ARG_DST     ? pd.dst_desc()
                                                             : pd.scratchpad_desc();
    arguments.emplace(argument, memory(desc, onednn.engine, nullptr));
  }
  const size_t bytes = b.output().bytes();
  b.emit(pd.impl_info_str(), [=, &onednn, primitive = dnnl::convolution_forward(pd)](const Pointers& p) mutable {
    if (residual >= 0) std::memcpy(p.at(y), p.at(residual), bytes);
    for (auto& [argument, memory] : arguments) memory.set_data_handle(p.at<void>(ids.at(argument)));
    primitive.execute(onednn.stream, arguments);
    onednn.stream.wait();
  });
}

}  // namespace

// conv2d: x, weight [O, C / groups, kh, kw], bias [O]?; fused_conv2d: the same and a residual?, then ReLU?.
void conv2d(Builder& b) {
  const Operands found = operands(b);
  const Geometry g = geometry(b, found);
  if (b.output().size() == 0) {
    b.write(0);
    return b.emit("nothing", [](const Pointers&) {});
  }
  try {
    const Choice choice = choose(b, found, g);
    const char* implementation = choice.primitive.impl_info_str();
    if ((slow(implementation) || isGemm(implementation)) && mergeGroups(b, g)) return;
    const BufferId weights =
        orderedWeights(b, plainWeights(b.input(1).shape, g.groups), choice.primitive.weights_desc());
    emitConvolution(b, found, choice, weights);
  } catch (const dnnl::error& error) {
    throw Error(b.step().op, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace seresnet::cpu
