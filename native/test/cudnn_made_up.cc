#include <exception>
#include <iostream>

#include "cuda/convolution/autotune.h"

// What native/cuda asks of the cuDNN in argv[1] for a device that is there: an engine plans convolutions of every pass and
// epilogue and runs them, first without plans on disk, then with those it left in the folder argv[2]. The device and the
// trials are made up here, cuDNN by who runs this: test/cuda_runtime.test.ts. Needs neither a GPU nor a driver.

namespace seresnet::cuda {

gpu::Properties gpu::properties(int) { return {"made up", 9, 0, 0, 13000, 13000}; }

std::optional<size_t> fastest(const Convolution&, const std::vector<std::shared_ptr<const ConvolutionPlan>>& plans) {
  return plans.size() - 1;
}

}  // namespace seresnet::cuda

int main(int, char** words) {
  using namespace seresnet::cuda;
  using Pass = Convolution::Pass;
  Convolution plain;
  plain.batch = plain.height = plain.width = plain.channels = plain.outChannels = plain.outHeight = plain.outWidth = 8;
  try {
    for (const bool autotune : {false, true, true}) {
      const auto engine = makeEngine({0, words[1], words[2], true, autotune});
      for (const auto dtype : {seresnet::DType::float32, seresnet::DType::float16, seresnet::DType::bfloat16})
        for (const Pass pass : {Pass::forward, Pass::inputGradient, Pass::weightGradient})
          for (const bool fused : {false, true})
            for (const bool tf32 : {false, true}) {
              Convolution c = plain;
              c.pass = pass;
              c.dtype = dtype;
              c.tf32 = tf32;
              c.gate = c.bias = c.residual = c.relu = fused && pass == Pass::forward;
              engine->plan(c)->run(nullptr, {});
            }
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
