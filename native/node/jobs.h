#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "runtime/errors.h"
#include "runtime/executor_thread.h"

namespace seresnet::node {

// A thread of one environment that works for its JavaScript thread, and the promises that are not settled yet. All but the
// work itself happens on the JavaScript thread. Whoever derives from it calls end() first in the destructor.
class Jobs : public std::enable_shared_from_this<Jobs> {
 public:
  using Work = std::function<void()>;
  using Finish = std::function<Napi::Value(Napi::Env)>;

  explicit Jobs(Napi::Env env);
  virtual ~Jobs() { end(); }
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  const std::atomic<bool>& stopping() const { return thread_.stopping(); }
  bool closed() const { return closed_; }
  // Whether work goes on by itself; for the thread.
  bool waits() const { return waiting_.has_value(); }
  uint64_t lastId() const { return nextId_ - 1; }

  // For a process that ends: drops what has not started and waits, within reason, for what has. What is submitted
  // afterwards is never done.
  void halt();

  // Does `work` on the thread, then what `rest` gives, if anything, on the waiting thread, then `finish` here, whose value
  // the promise resolves to.
  Napi::Promise submit(Work work, Finish finish, std::function<Work()> rest = nullptr);

  // Keeps a value alive until the function returned is called, on any thread.
  std::function<void()> keep(const Napi::Value& value);

  // Whether the job had not started and is dropped; its promise then rejects with the reason.
  bool drop(uint64_t id, const Napi::Value& reason);

 protected:
  // Ends the threads. What is under way is waited for, what has not started is never done.
  void end();

 private:
  struct Job {
    std::shared_ptr<Jobs> owner;  // alive as long as somebody waits
    Napi::Promise::Deferred deferred;
    Finish finish;
    std::optional<Error> failure;
  };

  // References that nobody needs any more. Shared with what still holds some, which may outlive the thread.
  struct Released {
    std::mutex mutex;
    std::vector<napi_ref> references;
  };

  void letGo();
  std::shared_ptr<Job> take(uint64_t id);
  static void arrived(napi_env env, napi_value, void* context, void* data);
  static void settle(napi_env env, Job& job);
  static void attempt(Work& work, std::optional<Error>& failure);
  void stop();
  static void close(void* data);

  Napi::Env env_;
  napi_threadsafe_function done_ = nullptr;
  std::unordered_map<uint64_t, std::shared_ptr<Job>> jobs_;
  uint64_t nextId_ = 1;
  std::shared_ptr<Released> released_ = std::make_shared<Released>();
  bool closed_ = false;
  bool ended_ = false;
  std::optional<ExecutorThread> waiting_;  // made by the thread for the first work that goes on by itself
  ExecutorThread thread_;                  // last, so that it ends before anything it uses
};

}  // namespace seresnet::node
