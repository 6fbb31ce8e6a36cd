#include <algorithm>

#include "bind.h"
#include "cuda/convolution/convolution_exact.h"
#include "cuda/kernels/bias_act.h"
#include "emit_convolution.h"
#include "ops.h"

namespace seresnet::cuda {

namespace {

// The part of an image's pixels that windows further apart than they are large leave in use: all, or a quarter where a 1x1
// convolution strides by 2. The gradient is 0 elsewhere, and written.
double touchedPart(const Convolution& c) {
  double part = 1;
  for (int dim = 0; dim < 2; ++dim)
    if (c.kernel[dim] < c.stride[dim] && c.pass != Convolution::Pass::inputGradient)
      part *= static_cast<double>(c.kernel[dim]) / static_cast<double>(c.stride[dim]);
  return part;
}

}  // namespace

// Adds the kernels of a convolution on buffers: one where the engine has the epilogue too, else a second for that.
void emitConvolution(Builder& b, const Convolution& convolution, const ConvolutionBuffers& buffers, int64_t channels) {
  const Convolution& c = convolution;
  Convolution done = c;  // what the engine does of it
  auto plan = b.engine().plan(done);
  if (!plan && c.gate && c.bias) {  // the gate is for what the bias has been added to
    done.gate = done.residual = done.relu = false;
    plan = b.engine().plan(done);
  }
  if (!plan && c.fused()) {
    done.gate = done.bias = done.residual = done.relu = false;
    plan = b.engine().plan(done);
  }
  if (!plan) throw Error(b.step().op, "cuDNN has no engine for " + done.text());

  const BufferId workspace = b.scratch(plan->workspace());
  for (const BufferId id : {buffers.x, buffers.w, buffers.y}) b.touch(id);
  if (done.bias) b.touch(buffers.bias);
  if (done == c)
    for (const BufferId id : {buffers.gate, buffers.residual}) b.touch(id);
  const double share = channels == 0 ? 1 : static_cast<double>(channels) / static_cast<double>(c.channels);
  b.computes(2.0 * share * static_cast<double>(macsOf(done)));
  b.passes(buffers.x, touchedPart(done));
  b.emit(plan->name(), [plan, buffers, done, workspace](Stream stream, const Pointers& p) {
    ConvolutionPointers pointers;
    pointers.x = p.at(buffers.x);
    pointers.w = p.at(buffers.w);
    pointers.y = p.at(buffers.y);
    pointers.workspace = p.at(workspace);
    if (done.gate) pointers.gate = p.at(buffers.gate);
    if (done.bias) pointers.bias = p.at(buffers.bias);
    if (done.residual) pointers.residual = p.at(buffers.residual);
    plan->run(stream, pointers);
  });
  if (done == c) return;

  const auto epilogue = [&](const std::string& name, BufferId bias, BufferId gate, BufferId residual, bool relu) {
    BiasActArguments arguments;
    arguments.dtype = c.dtype;
    arguments.images = c.batch;
    arguments.plane = c.outHeight * c.outWidth;
    arguments.channels = c.outChannels;
    arguments.relu = relu;
    emitLaunch(b, name, launchBiasAct, arguments,
               std::tuple{bind<&BiasActArguments::x>(buffers.y), bind<&BiasActArguments::y>(buffers.y),
                          bind<&BiasActArguments::gate>(gate), bind<&BiasActArguments::bias>(bias, c.dtype),
                          bind<&BiasActArguments::residual>(residual)});
  };
  BufferId bias = done.bias ? none : buffers.bias;
  if (c.gate && bias != none) {
    epilogue("bias", bias, none, none, false);
    bias = none;
  }
  epilogue("epilogue", bias, buffers.gate, buffers.residual, c.relu);
}

Convolution describe(Builder& b, const Shape& x, const Shape& w, const Shape& y, const ops::ConvolutionGeometry& g) {
  Convolution c;
  c.groups = g.groups;
  for (size_t i = 0; i < 2; ++i) {
    c.kernel[i] = w[2 + i];
    c.stride[i] = g.stride[i];
    c.padding[i] = g.padding[i];
    c.dilation[i] = g.dilation[i];
  }
  c.batch = x[0];
  c.channels = x[1];
  c.height = x[2];
  c.width = x[3];
  c.outChannels = y[1];
  c.outHeight = y[2];
  c.outWidth = y[3];
  c.dtype = b.outputType();
  c.tf32 = b.tf32();
  return c;
}

namespace {

// Tensor cores read 16 bytes of channels at a time. Where an image has to be brought into channels-last order anyway,
// zeros behind its channels cost nothing: 4 for the three colours of an image, else the next multiple of 8.
int64_t paddedChannels(Builder& b, const Convolution& c) {
  const bool half = c.dtype == DType::float16 || c.dtype == DType::bfloat16;
  if (!half || c.groups != 1 || c.channels % 8 == 0 || b.has(0, Layout::channelsLast)) return 0;
  return c.channels <= 4 ? 4 : (c.channels + 7) / 8 * 8;
}

}  // namespace

// conv2d: x, weight [O, C / groups, kh, kw], bias [O]?; fused_conv2d: the same and a residual?, then ReLU?.
void conv2d(Builder& b) {
  const ops::Conv2d op(b);
  b.expectOneDtype();
  Convolution c = describe(b, b.input(0).shape, b.input(1).shape, b.output().shape, op.geometry);
  c.bias = op.bias >= 0;
  c.residual = op.residual >= 0;
  c.relu = op.relu;
  if (b.output().size() == 0) {
    b.write(0, Layout::channelsLast);
    return b.emit("nothing", [](Stream, const Pointers&) {});
  }
  const int64_t padded = paddedChannels(b, c);
  const Form images{Layout::channelsLast, c.dtype, padded};
  ConvolutionBuffers buffers;
  buffers.x = b.read(0, images);
  buffers.w = b.read(1, images);
  if (c.bias) buffers.bias = b.read(2);
  if (c.residual) buffers.residual = b.read(static_cast<size_t>(op.residual), Layout::channelsLast);
  buffers.y = b.write(0, Layout::channelsLast);
  const int64_t own = c.channels;
  if (padded > 0) c.channels = padded;
  emitConvolution(b, c, buffers, own);
}

// conv2d_input_gradient: dy, weight -> dx; conv2d_weight_gradient: x, dy -> dweight.
void conv2dGradient(Builder& b) {
  const ops::Conv2dGradient op(b);
  b.expectOneDtype();
  const bool input = op.input;
  Convolution c = describe(b, op.x, op.w, op.y, op.geometry);
  c.pass = input ? Convolution::Pass::inputGradient : Convolution::Pass::weightGradient;
  ConvolutionBuffers buffers;
  const BufferId first = b.read(0, Layout::channelsLast);
  const BufferId second = b.read(1, Layout::channelsLast);
  const BufferId result = b.write(0, Layout::channelsLast);
  buffers.x = input ? result : first;
  buffers.w = input ? second : result;
  buffers.y = input ? first : second;
  emitConvolution(b, c, buffers);
}

}  // namespace seresnet::cuda
