#include "cuda/convolution/convolution.h"
#include "runtime/errors.h"

namespace seresnet::cuda {

std::unique_ptr<ConvolutionEngine> makeEngine(const EngineOptions&) {
  throw Error("cuda", "this build has no convolutions for CUDA: cuDNN's headers were not there when it was built");
}

}  // namespace seresnet::cuda
