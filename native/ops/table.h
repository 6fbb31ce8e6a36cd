#pragma once

// The pointwise ops of one operand, and of two.
#define SERESNET_UNARY_OPS(OP)                     \
  OP(relu, unary)                                  \
  OP(sigmoid, unary)                               \
  OP(sqrt, unary)                                  \
  OP(exp, unary)                                   \
  OP(log, unary)                                   \
  OP(neg, unary)

#define SERESNET_BINARY_OPS(OP)                    \
  OP(add, binary)                                  \
  OP(sub, binary)                                  \
  OP(mul, binary)                                  \
  OP(div, binary)

// Every op of a plan: its name there, and the function that makes its kernels on each device, cpu::function(Builder&) and
// cuda::function(Builder&). What an op is given and what memory safety needs of it is in the header of its family here.
#define SERESNET_OPS(OP)                           \
  SERESNET_UNARY_OPS(OP)                           \
  SERESNET_BINARY_OPS(OP)                          \
  OP(adamw, adamw)                                 \
  OP(avg_pool2d, avgPool2d)                        \
  OP(avg_pool2d_gradient, avgPool2dGradient)       \
  OP(batch_norm, batchNorm)                        \
  OP(batch_norm_act, batchNorm)                    \
  OP(batch_norm_gradient, batchNormGradient)       \
  OP(batch_norm_train, batchNormTrain)             \
  OP(broadcast, broadcast)                         \
  OP(cast, cast)                                   \
  OP(conv2d, conv2d)                               \
  OP(conv2d_input_gradient, conv2dGradient)        \
  OP(conv2d_weight_gradient, conv2dGradient)       \
  OP(cross_entropy, crossEntropy)                  \
  OP(cross_entropy_gradient, crossEntropyGradient) \
  OP(fill, fill)                                   \
  OP(fold_batch_norm, foldBatchNorm)               \
  OP(found_inf, foundInf)                          \
  OP(fused_conv2d, conv2d)                         \
  OP(gate, gate)                                   \
  OP(gate_gradient, gateGradient)                  \
  OP(gated_conv2d, gatedConv2d)                    \
  OP(global_norm, globalNorm)                      \
  OP(lerp, lerp)                                   \
  OP(linear, linear)                               \
  OP(log_softmax, softmax)                         \
  OP(matmul, matmul)                               \
  OP(max_pool2d, maxPool2d)                        \
  OP(max_pool2d_gradient, maxPool2dGradient)       \
  OP(mean, reduce)                                 \
  OP(pad, pad)                                     \
  OP(relu_gradient, activationGradient)            \
  OP(reshape, reshape)                             \
  OP(running_statistics, runningStatistics)        \
  OP(scale, scale)                                 \
  OP(sgd, sgd)                                     \
  OP(sigmoid_gradient, activationGradient)         \
  OP(slice, slice)                                 \
  OP(slice_gradient, sliceGradient)                \
  OP(softmax, softmax)                             \
  OP(squeeze_excite, squeezeExcite)                \
  OP(sum, reduce)                                  \
  OP(transpose, transpose)

// For these lists: a declaration in the namespace of a device, an entry of a map from names to functions, a name, an
// enumerator.
#define SERESNET_OP_DECLARATION(name, function) void function(Builder& b);
#define SERESNET_OP_ENTRY(name, function) {#name, function},
#define SERESNET_OP_NAME(name, function) #name,
#define SERESNET_OP_ENUMERATOR(name, function) name,

namespace seresnet::ops {

enum class Unary { SERESNET_UNARY_OPS(SERESNET_OP_ENUMERATOR) };
enum class Binary { SERESNET_BINARY_OPS(SERESNET_OP_ENUMERATOR) };

}  // namespace seresnet::ops
