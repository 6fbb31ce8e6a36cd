#pragma once

namespace seresnet {

// Threads that can run at once: the CPUs this process may use (taskset, a container's set), and no more than its cgroup's
// quota pays for. At least 1. More of them than that would wait for each other at the end of every step.
int availableThreads();

}  // namespace seresnet
