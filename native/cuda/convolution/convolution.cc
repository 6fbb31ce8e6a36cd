#include "convolution.h"

namespace seresnet::cuda {

std::string Convolution::text() const {
  const auto by = [](const int64_t (&pair)[2]) { return std::to_string(pair[0]) + "x" + std::to_string(pair[1]); };
  const char* passes[] = {"conv", "input gradient", "weight gradient"};
  std::string all = passes[static_cast<int>(pass)];
  all += " " + std::to_string(batch) + "x" + std::to_string(height) + "x" + std::to_string(width) + "x" +
         std::to_string(channels) + " -> " + std::to_string(outChannels) + " " + by(kernel);
  if (stride[0] != 1 || stride[1] != 1) all += " stride " + by(stride);
  if (padding[0] != 0 || padding[1] != 0) all += " padding " + by(padding);
  if (dilation[0] != 1 || dilation[1] != 1) all += " dilation " + by(dilation);
  if (groups != 1) all += " groups " + std::to_string(groups);
  all += std::string(" ") + (tf32 ? "tf32" : nameOf(dtype));
  if (gate) all += " *gate";
  if (bias) all += " +bias";
  if (residual) all += " +residual";
  if (relu) all += " relu";
  if (xAlignment != 16) all += " x at " + std::to_string(xAlignment);
  if (wAlignment != 16) all += " w at " + std::to_string(wAlignment);
  if (yAlignment != 16) all += " y at " + std::to_string(yAlignment);
  return all;
}

}  // namespace seresnet::cuda
