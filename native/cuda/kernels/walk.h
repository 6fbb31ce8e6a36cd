#pragma once

#include "launch.h"

namespace seresnet::cuda {

// The same walk with extents of 1 left out and neighbouring dims joined that all `arrays` step through evenly.
inline Walk merged(const Walk& walk, int arrays) {
  Walk result;
  for (int dim = 0; dim < walk.rank; ++dim) {
    if (walk.shape[dim] == 1) continue;
    const int last = result.rank - 1;
    bool even = last >= 0;
    for (int a = 0; even && a < arrays; ++a)
      even = result.strides[a][last] == walk.strides[a][dim] * walk.shape[dim];
    const int to = even ? last : result.rank++;
    result.shape[to] = even ? result.shape[last] * walk.shape[dim] : walk.shape[dim];
    for (int a = 0; a < arrays; ++a) result.strides[a][to] = walk.strides[a][dim];
  }
  if (result.rank == 0) {
    result.rank = 1;
    result.shape[0] = 1;
    for (int a = 0; a < arrays; ++a) result.strides[a][0] = 1;
  }
  return result;
}

// Divides the innermost dim by `lanes` where each array either repeats one element along it or can be moved `lanes`
// elements at a time. Strides stay in elements.
inline bool inLanes(Walk& walk, int arrays, int lanes) {
  const int inner = walk.rank - 1;
  if (walk.shape[inner] % lanes != 0) return false;
  for (int a = 0; a < arrays; ++a) {
    if (walk.strides[a][inner] != 0 && walk.strides[a][inner] != 1) return false;
    for (int dim = 0; walk.strides[a][inner] == 1 && dim < inner; ++dim)
      if (walk.strides[a][dim] % lanes != 0) return false;
  }
  walk.shape[inner] /= lanes;
  for (int a = 0; a < arrays; ++a) walk.strides[a][inner] *= lanes;
  return true;
}

// Where index `index` of the walk's row-major order lies in each array.
template <int Arrays>
__device__ __forceinline__ void offsets(const Walk& walk, int64_t index, int64_t (&offset)[Arrays]) {
#pragma unroll
  for (int a = 0; a < Arrays; ++a) offset[a] = 0;
#pragma unroll
  for (int dim = Walk::most - 1; dim > 0; --dim) {  // constant subscripts keep the walk out of local memory
    if (dim >= walk.rank) continue;
    const int64_t extent = walk.shape[dim];
    int64_t rest, place;
    if ((index | extent) >> 31 == 0) {  // 32-bit divisions are several times as fast
      rest = static_cast<uint32_t>(index) / static_cast<uint32_t>(extent);
      place = static_cast<uint32_t>(index) % static_cast<uint32_t>(extent);
    } else {
      rest = index / extent;
      place = index % extent;
    }
#pragma unroll
    for (int a = 0; a < Arrays; ++a) offset[a] += place * walk.strides[a][dim];
    index = rest;
  }
#pragma unroll
  for (int a = 0; a < Arrays; ++a) offset[a] += index * walk.strides[a][0];
}

}  // namespace seresnet::cuda
