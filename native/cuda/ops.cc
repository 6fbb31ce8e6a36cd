#include "ops.h"

namespace seresnet::cuda {

const std::unordered_map<std::string_view, Op>& ops() {
  static const std::unordered_map<std::string_view, Op> table{
      {"adamw", adamw},
      {"add", binary},
      {"avg_pool2d", avgPool2d},
      {"avg_pool2d_gradient", avgPool2dGradient},
      {"batch_norm", batchNorm},
      {"batch_norm_act", batchNorm},
      {"batch_norm_gradient", batchNormGradient},
      {"batch_norm_train", batchNormTrain},
      {"broadcast", broadcast},
      {"cast", cast},
      {"conv2d", conv2d},
      {"conv2d_input_gradient", conv2dGradient},
      {"conv2d_weight_gradient", conv2dGradient},
      {"cross_entropy", crossEntropy},
      {"cross_entropy_gradient", crossEntropyGradient},
      {"div", binary},
      {"exp", unary},
      {"fill", fill},
      {"fold_batch_norm", foldBatchNorm},
      {"found_inf", foundInf},
      {"fused_conv2d", conv2d},
      {"gate", gate},
      {"gate_gradient", gateGradient},
      {"gated_conv2d", gatedConv2d},
      {"linear", linear},
      {"log", unary},
      {"log_softmax", softmax},
      {"matmul", matmul},
      {"max_pool2d", maxPool2d},
      {"max_pool2d_gradient", maxPool2dGradient},
      {"mean", reduce},
      {"mul", binary},
      {"neg", unary},
      {"pad", pad},
      {"relu", unary},
      {"relu_gradient", activationGradient},
      {"reshape", reshape},
      {"sgd", sgd},
      {"sigmoid", unary},
      {"sigmoid_gradient", activationGradient},
      {"slice", slice},
      {"slice_gradient", sliceGradient},
      {"softmax", softmax},
      {"sqrt", unary},
      {"squeeze_excite", squeezeExcite},
      {"sub", binary},
      {"sum", reduce},
      {"transpose", transpose},
  };
  return table;
}

}  // namespace seresnet::cuda
