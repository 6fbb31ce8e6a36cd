#pragma once

#include <string>
#include <vector>

#include "cuda/convolution/convolution.h"

namespace seresnet::cuda {

// How cuDNN could compute a convolution on a device.
struct Support {
  std::string convolution;
  int configurations = 0;  // that the heuristics name and the notes allow
  int compiled = 0;        // of these, at run time only
  std::string plan;        // the engine of the first that could be made into a plan; "" for none
  double milliseconds = 0; // to find it and plan
};

// Asks cuDNN about convolutions for the device whose properties `json` has (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION); no
// such device is needed. `cudnn` is the file of libcudnn.so.9. Throws Error where cuDNN is missing, older than 9.11 or fails.
std::vector<Support> cudnnSupport(const std::string& cudnn, const std::string& json,
                                  const std::vector<Convolution>& convolutions);

}  // namespace seresnet::cuda
