#include "runtime.h"

#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "../runtime/errors.h"
#include "../runtime/executor_thread.h"
#include "convert.h"
#include "decode.h"

namespace seresnet::node {

namespace {

// One device of one environment: its backend, its thread, and the promises that are not settled yet. All but the work
// itself happens on the JavaScript thread.
class Device : public std::enable_shared_from_this<Device> {
 public:
  using Work = std::function<void()>;
  using Finish = std::function<Napi::Value(Napi::Env)>;

  Device(Napi::Env env, std::unique_ptr<Backend> backend) : env_(env), backend_(std::move(backend)) {
    const Napi::String name = Napi::String::New(env, "seresnet");
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, &Device::arrived,
                                        &done_) != napi_ok)
      throw Error("threadsafe function", "the environment is closing");
    napi_unref_threadsafe_function(env, done_);
    // Registered after the function, so run before it is closed: from then on no thread calls it.
    napi_add_env_cleanup_hook(env, &Device::close, this);
  }

  ~Device() {
    if (closed_) return;
    napi_remove_env_cleanup_hook(env_, &Device::close, this);
    stop();
    letGo();
    napi_release_threadsafe_function(done_, napi_tsfn_abort);
  }

  Backend& backend() { return *backend_; }
  const std::atomic<bool>& stopping() const { return thread_.stopping(); }
  bool closed() const { return closed_; }
  // Whether runs go on by themselves; for the executor thread.
  bool waits() const { return waiting_.has_value(); }
  uint64_t lastId() const { return nextId_ - 1; }

  // For a process that ends: drops what has not started and waits, within reason, for what has. What is submitted
  // afterwards is never done.
  void halt() {
    constexpr std::chrono::seconds patience(10);
    if (thread_.stop(patience) && waiting_) waiting_->stop(patience);
  }

  // Does `work` on the executor thread, then what `rest` gives, if anything, on the waiting thread, then `finish` here,
  // whose value the promise resolves to.
  Napi::Promise submit(Work work, Finish finish, std::function<Work()> rest = nullptr) {
    const uint64_t id = nextId_++;
    auto job = std::make_shared<Job>(Job{shared_from_this(), Napi::Promise::Deferred::New(env_), std::move(finish), {}});
    const Napi::Promise promise = job->deferred.Promise();
    if (jobs_.empty()) napi_ref_threadsafe_function(env_, done_);
    jobs_.emplace(id, job);
    // The task knows neither the job nor the device: both belong to the JavaScript thread.
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

  // Keeps a value alive until the function returned is called, on any thread.
  std::function<void()> keep(const Napi::Value& value) {
    letGo();
    napi_ref reference = nullptr;
    if (napi_create_reference(env_, value, 1, &reference) != napi_ok)
      throw Error("reference", "the environment is closing");
    return [released = released_, reference] {
      const std::lock_guard lock(released->mutex);
      released->references.push_back(reference);
    };
  }

  bool drop(uint64_t id, const Napi::Value& reason) {
    if (!thread_.drop(id)) return false;
    const std::shared_ptr<Job> job = take(id);
    if (job) job->deferred.Reject(reason);
    return true;
  }

 private:
  struct Job {
    std::shared_ptr<Device> device;  // alive as long as somebody waits
    Napi::Promise::Deferred deferred;
    Finish finish;
    std::optional<Error> failure;
  };

  // References that nobody needs any more. Shared with what still holds some, which may outlive the device.
  struct Released {
    std::mutex mutex;
    std::vector<napi_ref> references;
  };

  // Deletes them, which only the JavaScript thread may do.
  void letGo() {
    std::vector<napi_ref> references;
    {
      const std::lock_guard lock(released_->mutex);
      references.swap(released_->references);
    }
    for (const napi_ref reference : references) napi_delete_reference(env_, reference);
  }

  std::shared_ptr<Job> take(uint64_t id) {
    const auto found = jobs_.find(id);
    if (found == jobs_.end()) return nullptr;
    std::shared_ptr<Job> job = std::move(found->second);
    jobs_.erase(found);
    if (jobs_.empty()) napi_unref_threadsafe_function(env_, done_);
    return job;
  }

  // On the JavaScript thread, when the executor thread has done a job; `env` is null where the environment is closing.
  static void arrived(napi_env env, napi_value, void* context, void* data) {
    if (env == nullptr) return;
    auto* device = static_cast<Device*>(context);
    const std::shared_ptr<Job> job = device->take(reinterpret_cast<uintptr_t>(data));
    if (!job) return;
    const Napi::HandleScope scope(env);
    device->letGo();
    try {
      settle(env, *job);
    } catch (const Napi::Error&) {
      // the environment is being closed: nobody waits any more
    }
  }

  static void settle(napi_env env, Job& job) {
    try {
      if (job.failure) job.deferred.Reject(toError(env, *job.failure).Value());
      else job.deferred.Resolve(job.finish(env));
    } catch (const Napi::Error& error) {
      job.deferred.Reject(error.Value());
    } catch (const Error& error) {
      job.deferred.Reject(toError(env, error).Value());
    } catch (const std::exception& error) {
      job.deferred.Reject(toError(env, Error("native code", error.what())).Value());
    }
  }

  // Does something, and lets go of what it held here and not when the promise is settled.
  static void attempt(Work& work, std::optional<Error>& failure) {
    try {
      work();
    } catch (const Error& error) {
      failure = error;
    } catch (const std::exception& error) {
      failure = Error("native code", error.what());
    }
    work = nullptr;
  }

  void stop() {
    thread_.stop();
    if (waiting_) waiting_->stop();
  }

  static void close(void* data) {
    auto* device = static_cast<Device*>(data);
    device->closed_ = true;
    device->stop();
    const auto jobs = std::move(device->jobs_);  // letting go of them may free the device
  }

  Napi::Env env_;
  std::unique_ptr<Backend> backend_;
  napi_threadsafe_function done_ = nullptr;
  std::unordered_map<uint64_t, std::shared_ptr<Job>> jobs_;
  uint64_t nextId_ = 1;
  std::shared_ptr<Released> released_ = std::make_shared<Released>();
  bool closed_ = false;
  std::optional<ExecutorThread> waiting_;  // made by the executor thread for the first run that goes on by itself
  ExecutorThread thread_;                  // last, so that it ends before anything it uses
};

struct Buffer {
  std::shared_ptr<Device> device;
  std::shared_ptr<Memory> memory;
  DType dtype;

  static constexpr napi_type_tag tag{0x9d1c5f0a3b7e4c21, 0x8a6f2e4d1b3c5071};
  static constexpr const char* name = "a buffer";
  size_t bytes() const { return memory ? memory->bytes() : 0; }  // null once released
};

struct Loaded {
  std::shared_ptr<Device> device;
  std::shared_ptr<const Plan> plan;
  std::shared_ptr<Program> program;  // null once disposed
  size_t held;

  static constexpr napi_type_tag tag{0x4e8b7d2c90a1f365, 0xb1d4c7a2e5f80913};
  static constexpr const char* name = "a loaded plan";
  size_t bytes() const { return held; }
};

struct DeviceHandle {
  std::shared_ptr<Device> device;

  static constexpr napi_type_tag tag{0x27c6a9e1d4b80f53, 0xe3905b6c7a18d2f4};
  static constexpr const char* name = "a device";
  size_t bytes() const { return 0; }
};

void adjustExternalMemory(Napi::Env env, int64_t change) {
  int64_t total = 0;
  napi_adjust_external_memory(env, change, &total);
}

template <typename T>
Napi::Value wrap(Napi::Env env, T value) {
  const auto bytes = static_cast<int64_t>(value.bytes());
  auto external = Napi::External<T>::New(env, new T(std::move(value)), [](Napi::Env where, T* data) {
    const auto held = static_cast<int64_t>(data->bytes());
    if (held > 0 && !data->device->closed()) adjustExternalMemory(where, -held);
    delete data;
  });
  napi_type_tag_object(env, external, &T::tag);
  if (bytes > 0) adjustExternalMemory(env, bytes);
  return external;
}

template <typename T>
T& unwrap(const Napi::Value& value, const std::string& where) {
  bool fits = false;
  if (value.IsExternal()) napi_check_object_type_tag(value.Env(), value, &T::tag, &fits);
  if (!fits) throw Error(where, std::string("expected ") + T::name);
  return *value.As<Napi::External<T>>().Data();
}

// A buffer that has contents.
const Buffer& filled(const Napi::Value& value, const std::string& where) {
  const auto& buffer = unwrap<Buffer>(value, where);
  if (!buffer.memory) throw Error(where, "expected a buffer that has not been released, got one that has");
  return buffer;
}

Napi::Array list(const Napi::Value& value, const std::string& where, size_t count) {
  if (!value.IsArray()) throw Error(where, "expected an array");
  const Napi::Array items = value.As<Napi::Array>();
  if (items.Length() != count)
    throw Error(where, "expected " + std::to_string(count) + ", got " + std::to_string(items.Length()));
  return items;
}

std::vector<std::shared_ptr<HostMemory>> hostArrays(const Napi::Value& value, const Plan& plan,
                                                    const std::vector<uint32_t>& slots, const std::string& what) {
  const Napi::Array items = list(value, what, slots.size());
  std::vector<std::shared_ptr<HostMemory>> arrays;
  for (uint32_t i = 0; i < slots.size(); ++i) {
    const Napi::HandleScope scope(value.Env());
    const Slot& slot = plan.slots[slots[i]];
    arrays.push_back(toHostMemory(items.Get(i), slot.dtype, slot.size(), what + " " + std::to_string(i)));
  }
  return arrays;
}

}  // namespace

Napi::Value open(Napi::Env env, std::unique_ptr<Backend> backend) {
  return wrap(env, DeviceHandle{std::make_shared<Device>(env, std::move(backend))});
}

Napi::Value halt(const Napi::CallbackInfo& info) {
  unwrap<DeviceHandle>(info[0], "halt").device->halt();
  return info.Env().Undefined();
}

Napi::Value upload(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = unwrap<DeviceHandle>(info[0], "upload").device;
  const DType dtype = toDType(info[2]);
  auto contents = toHostMemory(info[1], dtype, lengthOf(info[1], "upload"), "upload");
  auto result = std::make_shared<std::shared_ptr<Memory>>();
  return device->submit(
      [backend = &device->backend(), contents = std::move(contents), result] { *result = backend->upload(contents); },
      [device, result, dtype](Napi::Env env) { return wrap(env, Buffer{device, *result, dtype}); });
}

Napi::Value read(const Napi::CallbackInfo& info) {
  const Buffer& buffer = filled(info[0], "read");
  auto result = std::make_shared<std::shared_ptr<HostMemory>>();
  return buffer.device->submit(
      [backend = &buffer.device->backend(), memory = buffer.memory, result] { *result = backend->download(memory); },
      [result, dtype = buffer.dtype](Napi::Env env) { return toTypedArray(env, dtype, std::move(*result)); });
}

Napi::Value release(const Napi::CallbackInfo& info) {
  auto& buffer = unwrap<Buffer>(info[0], "release");
  if (buffer.bytes() > 0) adjustExternalMemory(info.Env(), -static_cast<int64_t>(buffer.bytes()));
  buffer.memory = nullptr;
  return info.Env().Undefined();
}

Napi::Value load(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = unwrap<DeviceHandle>(info[0], "load").device;
  auto plan = std::make_shared<const Plan>(toPlan(info[1]));
  const Napi::Array given = list(info[2], "constants", plan->constants.size());
  const LoadOptions options = toLoadOptions(info[3]);
  if (!options.names.empty() && options.names.size() != plan->constants.size())
    throw Error("names", "expected " + std::to_string(plan->constants.size()));
  auto constants = std::make_shared<std::vector<std::shared_ptr<HostMemory>>>();
  for (uint32_t i = 0; i < plan->constants.size(); ++i) {
    const Napi::HandleScope scope(info.Env());
    const Slot& slot = plan->slots[plan->constants[i]];
    constants->push_back(borrow(given.Get(i), slot.dtype, slot.size(), "constant " + std::to_string(i),
                                [&](const Napi::Value& array) { return device->keep(array); }));
  }
  auto result = std::make_shared<std::shared_ptr<Program>>();
  return device->submit(
      [backend = &device->backend(), plan, constants, result, options] {
        *result = backend->load(*plan, std::move(*constants), options);
        constants->clear();
      },
      [device, plan, result](Napi::Env env) {
        const size_t bytes = (*result)->bytes();
        return wrap(env, Loaded{device, plan, std::move(*result), bytes});
      });
}

namespace {

// A run that is asked for: run(program, inputs, variables), and profile(…) alike.
struct Request {
  std::shared_ptr<Device> device;
  std::shared_ptr<const Plan> plan;
  std::shared_ptr<Program> program;
  std::shared_ptr<Run> run;
};

Request toRequest(const Napi::CallbackInfo& info, const std::string& where) {
  const Loaded& loaded = unwrap<Loaded>(info[0], where);
  if (!loaded.program) throw Error(where, "the plan has been disposed");
  const Request request{loaded.device, loaded.plan, loaded.program, std::make_shared<Run>()};
  const Plan& plan = *request.plan;
  request.run->stopping = &request.device->stopping();
  request.run->inputs = hostArrays(info[1], plan, plan.inputs, "inputs");
  const Napi::Array variables = list(info[2], "variables", plan.variables.size());
  for (uint32_t i = 0; i < plan.variables.size(); ++i) {
    const std::string what = "variable " + std::to_string(i);
    const Buffer& buffer = filled(variables.Get(i), what);
    const Slot& slot = plan.slots[plan.variables[i]];
    if (buffer.device != request.device) throw Error(what, "expected a buffer of the plan's device");
    if (buffer.dtype != slot.dtype || buffer.memory->bytes() != slot.bytes())
      throw Error(what, "expected " + std::to_string(slot.size()) + " elements of " + nameOf(slot.dtype));
    request.run->variables.push_back(buffer.memory);
  }
  return request;
}

// { id, result }, where `id` is what `drop` takes.
Napi::Value submit(Napi::Env env, Device& device, Device::Work work, Device::Finish finish,
                   std::function<Device::Work()> rest = nullptr) {
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("result", device.submit(std::move(work), std::move(finish), std::move(rest)));
  answer.Set("id", static_cast<double>(device.lastId()));
  return answer;
}

}  // namespace

Napi::Value run(const Napi::CallbackInfo& info) {
  const auto [device, plan, program, run] = toRequest(info, "run");
  return submit(info.Env(), *device, [program = program, run = run] { program->run(*run); },
                [device = device, plan = plan, run = run](Napi::Env env) -> Napi::Value {
                  Napi::Array outputs = Napi::Array::New(env, plan->outputs.size());
                  for (uint32_t i = 0; i < plan->outputs.size(); ++i)
                    outputs.Set(i, toTypedArray(env, plan->slots[plan->outputs[i]].dtype, std::move(run->outputs[i])));
                  Napi::Array written = Napi::Array::New(env, plan->written.size());
                  for (uint32_t i = 0; i < plan->written.size(); ++i)
                    written.Set(i, wrap(env, Buffer{device, run->written[i], plan->slots[plan->written[i]].dtype}));
                  Napi::Object result = Napi::Object::New(env);
                  result.Set("outputs", outputs);
                  result.Set("written", written);
                  return result;
                },
                [program = program, run = run]() -> Device::Work {
                  if (!run->finish) return nullptr;
                  return [program, run] { run->finish(); };
                });
}

Napi::Value profile(const Napi::CallbackInfo& info) {
  const auto [device, plan, program, run] = toRequest(info, "profile");
  auto times = std::make_shared<std::vector<KernelTime>>();
  return submit(info.Env(), *device, [program = program, run = run, times] { *times = program->profile(*run); },
                [times](Napi::Env env) -> Napi::Value { return toArray(env, *times); });
}

Napi::Value time(const Napi::CallbackInfo& info) {
  const auto [device, plan, program, run] = toRequest(info, "time");
  auto timing = std::make_shared<Timing>();
  const TimingOptions options = toTimingOptions(info[3]);
  return submit(info.Env(), *device,
                [program = program, run = run, timing, options] { *timing = program->time(*run, options); },
                [timing](Napi::Env env) -> Napi::Value { return toObject(env, *timing); });
}

Napi::Value drop(const Napi::CallbackInfo& info) {
  Device& device = *unwrap<DeviceHandle>(info[0], "drop").device;
  if (!info[1].IsNumber()) throw Error("drop", "expected a run's id");
  return Napi::Boolean::New(info.Env(),
                            device.drop(static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()), info[2]));
}

Napi::Value dispose(const Napi::CallbackInfo& info) {
  Loaded& loaded = unwrap<Loaded>(info[0], "dispose");
  Device* device = loaded.device.get();  // which outlives its executor thread's tasks
  return device->submit([program = std::move(loaded.program)]() mutable { program.reset(); },
                        [](Napi::Env env) { return env.Undefined(); },
                        [device] { return device->waits() ? Device::Work([] {}) : nullptr; });  // after the runs before it
}

Napi::Value kernels(const Napi::CallbackInfo& info) {
  const Loaded& loaded = unwrap<Loaded>(info[0], "kernels");
  if (!loaded.program) throw Error("kernels", "the plan has been disposed");
  return toArray(info.Env(), loaded.program->kernels());
}

}  // namespace seresnet::node
