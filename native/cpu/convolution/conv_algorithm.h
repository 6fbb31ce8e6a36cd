#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cpu/program/builder.h"
#include "ops/conv2d.h"

namespace seresnet::cpu {

// What a convolution's step is given beside x and the weight.
struct ConvolutionOperands {
  int bias = -1;      // index among the step's inputs
  int residual = -1;  // the same
  bool relu = false;
  bool gated = false;  // a gate is to be applied as results are stored, where the algorithm can
};

using ops::ConvolutionGeometry;

// Where the operands of one run are. Images lie in the candidate's layout, weights in its order; bias is null where there
// is none. Where the step has a residual, y holds it, and the result takes its place.
struct ConvolutionPlaces {
  const void* x;
  const void* weights;
  const float* bias;
  const float* gate;  // for each image and channel a factor of the convolution with its bias, or null
  void* y;
  void* scratch;
  bool keepsNaN = false;  // see relu_convolution.h
};

// One way to do the convolution of a step: an algorithm, on one layout of images.
struct ConvolutionCandidate {
  std::string implementation;  // what profiles call it
  Layout layout;
  bool winograd = false;
  bool gates = false;  // whether it applies a gate
  bool losesNaN = false;  // see relu_convolution.h
  size_t weightsBytes = 0;
  std::string weightsOrder;  // equal names mean that `order` makes the same of the same weights; "" leaves them as they are
  std::function<void(const float* plain, void* ordered)> order;  // from [O, C / groups, kh, kw]
  size_t scratchBytes = 0;
  std::function<void(const ConvolutionPlaces&)> run;  // on the threads of the team

  bool isSlow() const;  // no kernel for this instruction set, or none that avoids copying the image
  bool isReference() const;
};

// The side of the tiles in which our own Winograd (winograd.h) does a convolution with weights [O, C / groups, kh, kw],
// or 0 where it cannot or must not.
int64_t tileOf(Builder& b, const Shape& weights, const ConvolutionGeometry& g);
// Whether it is taken where weights change from run to run, as in training: by a rule and not by a clock, so that a run that
// is resumed in another process goes on bit for bit.
bool tilesUntimed(const Shape& weights, const Shape& y);

// How the current step is done. Candidates whose cost nobody knows before they ran are timed (conv_trial.cc). A plan that
// is to compute in bfloat16 gets a kernel for it where oneDNN has one (AVX-512 and newer), elsewhere one in float32 whose
// weights and results are rounded.
ConvolutionCandidate chooseConvolution(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g);

// Of several candidates the one that takes the least time on this step's shapes and weights, beside those whose results
// differ from the first one's by more than 1e-5. Equal steps are decided once in a process.
const ConvolutionCandidate& fastest(Builder& b, const ConvolutionOperands& operands, const ConvolutionGeometry& g,
                                    const std::vector<ConvolutionCandidate>& candidates);

// The kernel that runs a candidate for the current step. `gate`, for one that gates: a buffer of factors [N, O].
void emitConvolution(Builder& b, const ConvolutionOperands& operands, const ConvolutionCandidate& candidate,
                     BufferId gate = -1);

// The weights of a step that are the same in all runs, in a candidate's order.
std::shared_ptr<HostMemory> orderedWeights(const ConvolutionCandidate& candidate, const HostMemory& plain);

}  // namespace seresnet::cpu
