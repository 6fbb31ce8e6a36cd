#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cuda/gpu/gpu.h"
#include "runtime/plan.h"

namespace seresnet::cuda {

// What a convolution computes. All tensors are channels-last and of one dtype, sums are float32:
//   forward:         y = relu?((conv(x, w) (+ bias[channel])) (* gate[image, channel]) (+ residual))
//   inputGradient:   x from y and w
//   weightGradient:  w from x and y
struct Convolution {
  enum class Pass : uint8_t { forward, inputGradient, weightGradient };

  Pass pass = Pass::forward;
  DType dtype = DType::float32;
  bool tf32 = false;  // float32 products may lose 13 bits
  int64_t batch = 0, height = 0, width = 0, channels = 0;  // of x; w is [outChannels, kernel, kernel, channels / groups]
  int64_t outChannels = 0, outHeight = 0, outWidth = 0;    // of y
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  int64_t groups = 1;
  bool gate = false, bias = false, residual = false, relu = false;
  // The addresses of x, w and y are multiples of so many bytes; all others of 16.
  int64_t xAlignment = 16, wAlignment = 16, yAlignment = 16;

  bool fused() const { return gate || bias || residual || relu; }
  bool operator==(const Convolution&) const = default;
  // "conv 128x56x56x64 -> 64 3x3 float16 +bias +relu": for messages, and whole enough to be a cache's key.
  std::string text() const;
};

// Device pointers of one execution. What is computed is written, the rest read.
struct ConvolutionPointers {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  const void* gate = nullptr;
  const void* bias = nullptr;
  const void* residual = nullptr;
  void* workspace = nullptr;
};

// A convolution that an engine has found a way to compute. Immutable, and shared by all who need it.
class ConvolutionPlan {
 public:
  virtual ~ConvolutionPlan() = default;
  virtual size_t workspace() const = 0;  // bytes
  virtual std::string name() const = 0;  // of what runs, for people
  // Puts the work into the stream; no allocation, no synchronisation, so that it may be captured. Called on the executor
  // thread only.
  virtual void run(gpu::Stream stream, const ConvolutionPointers& pointers) const = 0;
};

class ConvolutionEngine {
 public:
  virtual ~ConvolutionEngine() = default;
  // Null when the engine cannot do it in one; throws Error when it fails.
  virtual std::shared_ptr<const ConvolutionPlan> plan(const Convolution& convolution) = 0;
};

struct EngineOptions {
  int device = 0;
  std::string cudnn;          // the file of libcudnn.so.9
  std::string cache;          // a folder for plans; "" keeps none on disk
  bool deterministic = true;  // the same bits in every run
  bool autotune = false;      // times the candidates of every new shape on the device, and keeps the fastest
};

// cuDNN's: cudnn_engine.cc. Built, never run on a GPU.
std::unique_ptr<ConvolutionEngine> makeEngine(const EngineOptions& options);

}  // namespace seresnet::cuda
