#include "runtime.h"

#include <utility>

#include "convert.h"
#include "decode.h"
#include "handles.h"
#include "jobs.h"

namespace seresnet::node {

namespace {

// One device of one environment: its backend and its thread.
class Device : public Jobs {
 public:
  Device(Napi::Env env, std::unique_ptr<Backend> backend) : Jobs(env), backend_(std::move(backend)) {}
  ~Device() override { end(); }

  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_;
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

// The inputs of a run. Large ones are not copied where they may be shared: it would hold up the JavaScript thread.
std::vector<std::shared_ptr<HostMemory>> toInputs(const Napi::Value& value, const Plan& plan, Device& device, bool shared) {
  constexpr size_t large = size_t{1} << 20;
  const Napi::Array items = list(value, "inputs", plan.inputs.size());
  std::vector<std::shared_ptr<HostMemory>> arrays;
  for (uint32_t i = 0; i < plan.inputs.size(); ++i) {
    const Napi::HandleScope scope(value.Env());
    const Slot& slot = plan.slots[plan.inputs[i]];
    const std::string what = "inputs " + std::to_string(i);
    const Napi::Value item = items.Get(i);
    arrays.push_back(!shared || slot.bytes() < large ? toHostMemory(item, slot.dtype, slot.size(), what)
                                          : borrow(item, slot.dtype, slot.size(), what,
                                                   [&](const Napi::Value& array) { return device.keep(array); }));
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
  request.run->inputs = toInputs(info[1], plan, *request.device, info[3].IsBoolean() && info[3].As<Napi::Boolean>().Value());
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
