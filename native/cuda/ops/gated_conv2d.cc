#include "bind.h"
#include "cuda/kernels/global_pool.h"
#include "emit_convolution.h"
#include "ops.h"
#include "squeeze_excite.h"

namespace seresnet::cuda {

namespace {

// Linear squeeze: the mean of a 1x1 convolution W x + b is W mean(x) + b, so the first layer of the excitation needs only
// the mean of x, with W1 W as its weight and W1 b + b1 as its bias. Worked out in float64.
struct Squeezed {
  std::vector<float> weight, bias;  // [R, depth], [R]
};

Squeezed squeezed(const float* w1, const float* b1, const float* w, const float* bias, int64_t hidden, int64_t channels,
                  int64_t depth) {
  Squeezed all;
  std::vector<double> row(static_cast<size_t>(depth));
  for (int64_t r = 0; r < hidden; ++r) {
    std::fill(row.begin(), row.end(), 0.0);
    double shift = b1[r];
    for (int64_t c = 0; c < channels; ++c) {
      const double factor = w1[r * channels + c];
      for (int64_t d = 0; d < depth; ++d) row[static_cast<size_t>(d)] += factor * w[c * depth + d];
      if (bias != nullptr) shift += factor * bias[c];
    }
    all.weight.insert(all.weight.end(), row.begin(), row.end());
    all.bias.push_back(static_cast<float>(shift));
  }
  return all;
}

// Adds the kernels that work out gate [images, channels] from the convolution's input.
BufferId emitGate(Builder& b, const Convolution& c, BufferId x, size_t at) {
  GlobalPoolArguments pool;
  pool.dtype = c.dtype;
  pool.images = {c.batch, c.height, c.width, c.channels};
  const BufferId pooled = b.scratch(static_cast<size_t>(c.batch * c.channels) * deviceBytes(c.dtype));
  emitLaunch(b, "squeeze", launchGlobalPool, pool,
             std::tuple{bind<&GlobalPoolArguments::x>(x), bind<&GlobalPoolArguments::y>(pooled)});

  ExciteArguments excite;
  excite.dtype = c.dtype;
  excite.images = c.batch;
  excite.depth = c.channels;
  excite.channels = c.outChannels;
  excite.hidden = b.input(at).shape[0];
  const Squeezed first = squeezed(b.constant(at), b.constant(at + 1), b.constant(1), c.bias ? b.constant(2) : nullptr,
                                  excite.hidden, c.outChannels, c.channels);
  const BufferId w1 = b.keep(first.weight, c.dtype);
  const BufferId b1 = b.keep(first.bias, DType::float32);
  const BufferId w2 = b.read(at + 2);
  const auto b2 = b.readVector(at + 3);
  const BufferId gate = b.scratch(static_cast<size_t>(c.batch * c.outChannels) * deviceBytes(c.dtype));
  b.computes(2.0 * static_cast<double>(c.batch * excite.hidden * (c.channels + c.outChannels)));
  emitLaunch(b, "excite", launchExcite, excite,
             std::tuple{bind<&ExciteArguments::pooled>(pooled), bind<&ExciteArguments::gate>(gate),
                        bind<&ExciteArguments::w1>(w1), bind<&ExciteArguments::w2>(w2), bind<&ExciteArguments::b1>(b1),
                        bind<&ExciteArguments::b2>(b2)});
  return gate;
}

}  // namespace

// x, weight, bias?, W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual? -> conv(x) * gate (+ residual) (+ ReLU). Where the
// convolution is 1x1 and the weights are constants, the gate is known before it and part of its epilogue.
void gatedConv2d(Builder& b) {
  const ops::GatedConv2d op(b);
  b.expectOneDtype();
  Convolution c = describe(b, b.input(0).shape, b.input(1).shape, b.output().shape, op.geometry);
  c.bias = op.bias >= 0;
  const size_t at = op.excitation;

  ConvolutionBuffers buffers;
  buffers.x = b.read(0, Layout::channelsLast);
  buffers.w = b.read(1, Layout::channelsLast);
  if (c.bias) buffers.bias = b.read(2);
  const Excitation excitation = readExcitation(b, at, op.hidden);
  const BufferId residual = op.residual >= 0 ? b.read(static_cast<size_t>(op.residual), Layout::channelsLast) : none;
  const bool pointwise = c.kernel[0] * c.kernel[1] * c.stride[0] * c.stride[1] * c.groups == 1 &&
                         c.padding[0] == 0 && c.padding[1] == 0;
  const bool known = b.constant(1) && b.constant(at) && b.constant(at + 1) && (!c.bias || b.constant(2));
  if (pointwise && known) {
    buffers.gate = emitGate(b, c, buffers.x, at);
    buffers.residual = residual;
    buffers.y = b.write(0, Layout::channelsLast);
    c.gate = true;
    c.residual = op.residual >= 0;
    c.relu = op.relu;
    return emitConvolution(b, c, buffers);
  }
  const BufferId convolved = b.scratch(static_cast<size_t>(b.output().size()) * deviceBytes(c.dtype));
  buffers.y = convolved;
  emitConvolution(b, c, buffers);
  const BufferId out = b.write(0, Layout::channelsLast);
  emitSqueezeExcite(b, {c.batch, c.outHeight, c.outWidth, c.outChannels}, op.relu, convolved, excitation, residual, out);
}

}  // namespace seresnet::cuda
