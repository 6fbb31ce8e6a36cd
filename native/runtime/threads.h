#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace seresnet {

// Waits until `ready`. GCC 12's condition_variable::wait would need a C++ library as new as itself, which RHEL 9 and Amazon
// Linux 2023 have not; waiting with a limit is all in the header.
template <typename Ready>
void waitUntil(std::condition_variable& condition, std::unique_lock<std::mutex>& lock, const Ready& ready) {
  while (!condition.wait_for(lock, std::chrono::hours(1), ready)) {
  }
}

// Threads that can run at once: the CPUs this process may use (taskset, a container's set), and no more than its cgroup's
// quota pays for. At least 1. More of them than that would wait for each other at the end of every step.
int availableThreads();

}  // namespace seresnet
