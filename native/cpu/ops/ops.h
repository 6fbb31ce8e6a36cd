#pragma once

#include <string_view>
#include <unordered_map>

#include "cpu/program/builder.h"

namespace seresnet::cpu {

// Table of contents: what makes the kernels of each op of a plan. They check what memory safety needs.
using Op = void (*)(Builder&);
const std::unordered_map<std::string_view, Op>& ops();

void activationGradient(Builder& b);
void adamw(Builder& b);
void avgPool2d(Builder& b);
void avgPool2dGradient(Builder& b);
void batchNorm(Builder& b);
void batchNormGradient(Builder& b);
void batchNormTrain(Builder& b);
void binary(Builder& b);
void broadcast(Builder& b);
void cast(Builder& b);
void conv2d(Builder& b);
void conv2dGradient(Builder& b);
void crossEntropy(Builder& b);
void crossEntropyGradient(Builder& b);
void fill(Builder& b);
void foldBatchNorm(Builder& b);
void foundInf(Builder& b);
void gate(Builder& b);
void gateGradient(Builder& b);
void gatedConv2d(Builder& b);
void globalNorm(Builder& b);
void lerp(Builder& b);
void linear(Builder& b);
void matmul(Builder& b);
void maxPool2d(Builder& b);
void maxPool2dGradient(Builder& b);
void pad(Builder& b);
void reduce(Builder& b);
void reshape(Builder& b);
void runningStatistics(Builder& b);
void scale(Builder& b);
void sgd(Builder& b);
void slice(Builder& b);
void sliceGradient(Builder& b);
void softmax(Builder& b);
void squeezeExcite(Builder& b);
void transpose(Builder& b);
void unary(Builder& b);

}  // namespace seresnet::cpu
