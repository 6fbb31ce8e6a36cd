// libgomp, which oneDNN brings along, reads OMP_PROC_BIND in its constructor and then pins the thread that loads it to
// the first CPU. That thread is Node's: the JavaScript thread, and every thread it starts later, would share one CPU.
// So right after (this library's constructors run after those of the libraries it needs, on the same thread, once per
// process) the loading thread gets back the CPUs that Node's other threads, started before, still have. OpenMP binds the
// executor thread by itself when that first opens a parallel region.

#ifdef __linux__

#include <dirent.h>
#include <sched.h>

#include <cstdlib>

namespace {

__attribute__((constructor)) void unpinLoadingThread() {
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  while (const dirent* task = readdir(tasks)) {
    const pid_t id = static_cast<pid_t>(std::atoi(task->d_name));
    cpu_set_t one;
    if (id > 0 && sched_getaffinity(id, sizeof one, &one) == 0) CPU_OR(&allowed, &allowed, &one);
  }
  closedir(tasks);
  if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

}  // namespace

#endif
