#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/plan.h"

struct CUstream_st;

// What every launch function takes: plain data, so that callers need no CUDA header. Pointers are to device memory.
//
// Conventions: images are channels-last (NHWC). Activations and matrices of one call share one float dtype (float32,
// float16 or bfloat16); arithmetic is float32. Per-channel vectors carry a dtype of their own. Launches are asynchronous on
// the stream, allocate nothing, may be captured, and give the same bits each time. They throw Error when a launch fails.
namespace seresnet::cuda {

using Stream = CUstream_st*;  // cudaStream_t

// A float vector that is read, one element a channel; without data it is left out.
struct Vector {
  const void* data = nullptr;
  DType dtype = DType::float32;
};

// A float vector that is written.
struct VectorOut {
  void* data = nullptr;
  DType dtype = DType::float32;
};

// Images [batch, height, width, channels].
struct Images {
  int64_t batch = 0, height = 0, width = 0, channels = 0;

  int64_t plane() const { return height * width; }
  int64_t rows() const { return batch * plane(); }
  int64_t size() const { return rows() * channels; }
};

// Dims in row-major order, outermost first, and for up to three arrays the steps (in elements) along each of them.
struct Walk {
  static constexpr int most = 8;
  int rank = 0;
  int64_t shape[most] = {};
  int64_t strides[3][most] = {};

  int64_t size() const {
    int64_t count = 1;
    for (int dim = 0; dim < rank; ++dim) count *= shape[dim];
    return count;
  }
};

}  // namespace seresnet::cuda
