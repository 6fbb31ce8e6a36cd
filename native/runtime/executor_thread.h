#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace seresnet {

// For a process that ends while a task is under way: libraries free in exit handlers what the task uses, so it leaves without
// them, with the status it was asked for. (JavaScript waits for tasks where it can, but not all that ends a process asks it.)
// What registers last is called first, and libraries register when they are first used: to be called again before such uses.
void guardExit();

// A thread that does one task after the other, in the order they came. Tasks must not throw.
class ExecutorThread {
 public:
  using Task = std::function<void()>;

  ExecutorThread();
  ~ExecutorThread() { stop(); }
  ExecutorThread(const ExecutorThread&) = delete;
  ExecutorThread& operator=(const ExecutorThread&) = delete;

  void push(uint64_t id, Task task);

  // Takes a task that has not started out of the queue; false when it has.
  bool drop(uint64_t id);

  // Drops what has not started, tells what has that nobody waits, and returns when the thread has ended: true. Or, where a
  // limit is given, when the task under way still goes on after so long: false.
  bool stop(std::chrono::milliseconds limit = std::chrono::milliseconds::max());

  const std::atomic<bool>& stopping() const { return stopping_; }

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_, endedNow_;
  std::deque<std::pair<uint64_t, Task>> queue_;
  std::atomic<bool> stopping_{false};
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace seresnet
