#include "jobs.h"

#include <chrono>
#include <utility>

#include "convert.h"

namespace seresnet::node {

Jobs::Jobs(Napi::Env env) : env_(env) {
  const Napi::String name = Napi::String::New(env, "seresnet");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, &Jobs::arrived, &done_) !=
      napi_ok)
    throw Error("threadsafe function", "the environment is closing");
  napi_unref_threadsafe_function(env, done_);
  // Registered after the function, so run before it is closed: from then on no thread calls it.
  napi_add_env_cleanup_hook(env, &Jobs::close, this);
}

void Jobs::end() {
  if (closed_ || ended_) return;
  ended_ = true;
  napi_remove_env_cleanup_hook(env_, &Jobs::close, this);
  stop();
  letGo();
  napi_release_threadsafe_function(done_, napi_tsfn_abort);
}

void Jobs::halt() {
  constexpr std::chrono::seconds patience(10);
  if (thread_.stop(patience) && waiting_) waiting_->stop(patience);
}

Napi::Promise Jobs::submit(Work work, Finish finish, std::function<Work()> rest) {
  const uint64_t id = nextId_++;
  auto job = std::make_shared<Job>(Job{shared_from_this(), Napi::Promise::Deferred::New(env_), std::move(finish), {}});
  const Napi::Promise promise = job->deferred.Promise();
  if (jobs_.empty()) napi_ref_threadsafe_function(env_, done_);
  jobs_.emplace(id, job);
  // The task knows neither the job nor the owner: both belong to the JavaScript thread.
  const auto report = [done = done_, id] {
    napi_call_threadsafe_function(done, reinterpret_cast<void*>(static_cast<uintptr_t>(id)), napi_tsfn_nonblocking);
  };
  thread_.push(id, [=, this, failure = &job->failure, work = std::move(work)]() mutable {
    Work later;
    attempt(work, *failure);
    if (!*failure && rest) later = rest();
    rest = nullptr;
    if (!later) return report();
    if (!waiting_) waiting_.emplace();
    waiting_->push(id, [=]() mutable {
      attempt(later, *failure);
      report();
    });
  });
  return promise;
}

std::function<void()> Jobs::keep(const Napi::Value& value) {
  letGo();
  napi_ref reference = nullptr;
  if (napi_create_reference(env_, value, 1, &reference) != napi_ok)
    throw Error("reference", "the environment is closing");
  return [released = released_, reference] {
    const std::lock_guard lock(released->mutex);
    released->references.push_back(reference);
  };
}

bool Jobs::drop(uint64_t id, const Napi::Value& reason) {
  if (!thread_.drop(id)) return false;
  const std::shared_ptr<Job> job = take(id);
  if (job) job->deferred.Reject(reason);
  return true;
}

// Deletes the references, which only the JavaScript thread may do.
void Jobs::letGo() {
  std::vector<napi_ref> references;
  {
    const std::lock_guard lock(released_->mutex);
    references.swap(released_->references);
  }
  for (const napi_ref reference : references) napi_delete_reference(env_, reference);
}

std::shared_ptr<Jobs::Job> Jobs::take(uint64_t id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return nullptr;
  std::shared_ptr<Job> job = std::move(found->second);
  jobs_.erase(found);
  if (jobs_.empty()) napi_unref_threadsafe_function(env_, done_);
  return job;
}

// On the JavaScript thread, when the thread has done a job; `env` is null where the environment is closing.
void Jobs::arrived(napi_env env, napi_value, void* context, void* data) {
  if (env == nullptr) return;
  auto* jobs = static_cast<Jobs*>(context);
  const std::shared_ptr<Job> job = jobs->take(reinterpret_cast<uintptr_t>(data));
  if (!job) return;
  const Napi::HandleScope scope(env);
  jobs->letGo();
  try {
    settle(env, *job);
  } catch (const Napi::Error&) {
    // the environment is being closed: nobody waits any more
  }
}

void Jobs::settle(napi_env env, Job& job) {
  try {
    if (job.failure) job.deferred.Reject(toError(env, *job.failure).Value());
    else job.deferred.Resolve(job.finish(env));
  } catch (const Napi::Error& error) {
    job.deferred.Reject(error.Value());
  } catch (const std::exception&) {
    job.deferred.Reject(toError(env, currentError()).Value());
  }
}

// Does something, and lets go of what it held here and not when the promise is settled.
void Jobs::attempt(Work& work, std::optional<Error>& failure) {
  try {
    work();
  } catch (const std::exception&) {
    failure = currentError();
  }
  work = nullptr;
}

void Jobs::stop() {
  thread_.stop();
  if (waiting_) waiting_->stop();
}

void Jobs::close(void* data) {
  auto* jobs = static_cast<Jobs*>(data);
  jobs->closed_ = true;
  jobs->stop();
  const auto waiting = std::move(jobs->jobs_);  // letting go of them may free the owner
}

}  // namespace seresnet::node
