#include "executor_thread.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>

#ifdef __GLIBC__
#include <unistd.h>

#include <cstdio>
#endif

#include "errors.h"
#include "threads.h"

namespace seresnet {

namespace {

std::atomic<int> busy{0};  // threads that do a task

#ifdef __GLIBC__
void leaveIfBusy(int status, void*) {
  if (busy == 0) return;
  std::fflush(nullptr);
  _exit(status);
}
#endif

}  // namespace

void guardExit() {
#ifdef __GLIBC__
  constexpr int enough = 4096;
  static std::atomic<int> registered{0};
  if (registered < enough && ++registered <= enough) on_exit(&leaveIfBusy, nullptr);
#endif
}

ExecutorThread::ExecutorThread() {
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error& error) {
    throw Error("thread", error.what());
  }
}

void ExecutorThread::push(uint64_t id, Task task) {
  {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(id, std::move(task));
  }
  wake_.notify_one();
}

bool ExecutorThread::drop(uint64_t id) {
  Task dropped;  // destroyed after the lock is gone
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(queue_.begin(), queue_.end(), [id](const auto& item) { return item.first == id; });
  if (found == queue_.end()) return false;
  dropped = std::move(found->second);
  queue_.erase(found);
  return true;
}

bool ExecutorThread::stop(std::chrono::milliseconds limit) {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (limit != std::chrono::milliseconds::max()) {
    std::unique_lock lock(mutex_);
    if (!endedNow_.wait_for(lock, limit, [this] { return ended_; })) return false;
  }
  if (thread_.joinable()) thread_.join();
  queue_.clear();
  return true;
}

void ExecutorThread::work() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      waitUntil(wake_, lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) {
        ended_ = true;
        endedNow_.notify_all();
        return;
      }
      task = std::move(queue_.front().second);
      queue_.pop_front();
    }
    guardExit();
    ++busy;
    task();
    --busy;
  }
}

}  // namespace seresnet
