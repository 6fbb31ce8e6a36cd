#include "simd.h"

namespace seresnet::cpu {

const Simd* simd() {
#ifdef SERESNET_SIMD_KERNELS
  if (__builtin_cpu_supports("avx512f")) return &simdAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &simdAvx2;
#endif
  return nullptr;
}

}  // namespace seresnet::cpu
