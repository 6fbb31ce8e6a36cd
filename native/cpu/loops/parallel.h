#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

// Compiles a loop once for each instruction set worth having; the loader picks one.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define SERESNET_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define SERESNET_CLONES
#endif

namespace seresnet::cpu {

// Calls body(from, to) on the threads of the team, each with its part of `total`; on one where there is less than
// `grain` for each.
template <typename Body>
void parallel(int64_t total, int64_t grain, const Body& body) {
  if (total <= 0) return;
  const int threads = static_cast<int>(std::clamp<int64_t>(total / std::max<int64_t>(grain, 1), 1, omp_get_max_threads()));
  if (threads == 1) return body(int64_t{0}, total);
#pragma omp parallel num_threads(threads)
  {
    const int64_t thread = omp_get_thread_num();
    const int64_t count = omp_get_num_threads();
    body(total * thread / count, total * (thread + 1) / count);
  }
}

}  // namespace seresnet::cpu
