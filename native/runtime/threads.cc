#include "threads.h"

#include <algorithm>
#include <fstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif

namespace seresnet {

namespace {

int allowedCpus() {
#ifdef __linux__
  // The main thread's: the calling one may be a thread that OpenMP has bound to one CPU. The C++ library's count is that of
  // the machine in some versions of glibc.
  cpu_set_t allowed;
  if (sched_getaffinity(getpid(), sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int availableThreads() {
  int threads = allowedCpus();
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // microseconds of CPU time in a period of so many; "max" where there is no limit
  double quota = 0;
  double period = 0;
  if (file >> quota >> period && period > 0) threads = std::min(threads, static_cast<int>(quota / period));
  return std::max(threads, 1);
}

}  // namespace seresnet
