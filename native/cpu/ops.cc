#include "ops.h"

namespace seresnet::cpu {

const std::unordered_map<std::string_view, Op>& ops() {
  static const std::unordered_map<std::string_view, Op> table{
      {"add", binary},
      {"avg_pool2d", avgPool2d},
      {"batch_norm", batchNorm},
      {"batch_norm_act", batchNorm},
      {"batch_norm_train", batchNormTrain},
      {"cast", cast},
      {"conv2d", conv2d},
      {"cross_entropy", crossEntropy},
      {"div", binary},
      {"exp", unary},
      {"fold_batch_norm", foldBatchNorm},
      {"fused_conv2d", conv2d},
      {"linear", linear},
      {"log", unary},
      {"log_softmax", softmax},
      {"matmul", matmul},
      {"max_pool2d", maxPool2d},
      {"mean", reduce},
      {"mul", binary},
      {"neg", unary},
      {"pad", pad},
      {"relu", unary},
      {"reshape", reshape},
      {"sigmoid", unary},
      {"slice", slice},
      {"softmax", softmax},
      {"sqrt", unary},
      {"squeeze_excite", squeezeExcite},
      {"sub", binary},
      {"sum", reduce},
  };
  return table;
}

}  // namespace seresnet::cpu
