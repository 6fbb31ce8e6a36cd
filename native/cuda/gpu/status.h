#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "runtime/errors.h"

// What the CUDA runtime answers, for the few files that call it. It also keeps what failed last, for whoever asks next: once
// a failure is an exception or of no interest, that is cleared, or a later call would be taken to have failed.
namespace seresnet::cuda {

// For calls whose failure changes nothing: those that free.
inline void forget(cudaError_t status) noexcept {
  if (status != cudaSuccess) cudaGetLastError();
}

inline void check(const char* call, cudaError_t status) {
  if (status == cudaSuccess) return;
  forget(status);
  throw Error(call, std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
              status == cudaErrorMemoryAllocation ? Error::memory : Error::device);
}

}  // namespace seresnet::cuda
