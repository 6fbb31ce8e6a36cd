#include "convert.h"

#include <new>

namespace seresnet::node {

namespace {

Napi::Value toValue(Napi::Env env, const Detail& detail) {
  struct Visitor {
    Napi::Env env;
    Napi::Value operator()(const std::string& text) const { return Napi::String::New(env, text); }
    Napi::Value operator()(double number) const { return Napi::Number::New(env, number); }
    Napi::Value operator()(bool flag) const { return Napi::Boolean::New(env, flag); }
    Napi::Value operator()(const std::vector<std::string>& list) const { return toArray(env, list); }
  };
  return std::visit(Visitor{env}, detail);
}

}  // namespace

Napi::Array toArray(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); ++i) array.Set(i, Napi::String::New(env, strings[i]));
  return array;
}

Napi::Array toArray(Napi::Env env, const std::vector<double>& numbers) {
  Napi::Array array = Napi::Array::New(env, numbers.size());
  for (uint32_t i = 0; i < numbers.size(); ++i) array.Set(i, numbers[i]);
  return array;
}

Napi::Array toArray(Napi::Env env, const std::vector<KernelTime>& times) {
  Napi::Array array = Napi::Array::New(env, times.size());
  for (uint32_t i = 0; i < times.size(); ++i) {
    const Napi::HandleScope scope(env);
    const KernelTime& time = times[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("step", time.step);
    object.Set("op", time.op);
    object.Set("implementation", time.implementation);
    object.Set("start", time.start);
    object.Set("milliseconds", time.milliseconds);
    object.Set("bytes", time.bytes);
    object.Set("flops", time.flops);
    array.Set(i, object);
  }
  return array;
}

Napi::Object toObject(Napi::Env env, const Timing& timing) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("latencies", toArray(env, timing.latencies));
  object.Set("milliseconds", toArray(env, timing.milliseconds));
  object.Set("kernels", toArray(env, timing.kernels));
  object.Set("copied", timing.copied);
  object.Set("most", static_cast<double>(timing.most));
  object.Set("notReplayed", timing.notReplayed);
  return object;
}

Napi::Object toObject(Napi::Env env, const DeviceInfo& device) {
  Napi::Object details = Napi::Object::New(env);
  for (const auto& [key, value] : device.details) details.Set(key, toValue(env, value));

  Napi::Object object = Napi::Object::New(env);
  object.Set("name", device.name);
  object.Set("index", device.index);
  object.Set("usable", device.problems.empty());
  object.Set("description", device.description);
  if (!device.problems.empty()) {
    object.Set("reason", device.problems.front().reason);
    object.Set("fix", device.problems.front().fix);
    object.Set("code", device.problems.front().code);
    std::vector<std::string> problems;
    for (const Problem& problem : device.problems) problems.push_back(problem.reason + "; fix: " + problem.fix);
    details.Set("problems", toArray(env, problems));
  }
  object.Set("details", details);
  return object;
}

std::vector<std::string> toStrings(const Napi::Value& value, const std::string& what) {
  std::vector<std::string> strings;
  if (value.IsUndefined()) return strings;
  const auto refuse = [&] { return Napi::TypeError::New(value.Env(), what + ": expected an array of strings"); };
  if (!value.IsArray()) throw refuse();
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsString()) throw refuse();
    strings.push_back(item.As<Napi::String>().Utf8Value());
  }
  return strings;
}

Error currentError() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error("memory", "the system has no more for this process", Error::memory);
  } catch (const std::exception& error) {
    return Error("native code", error.what());
  }
}

Napi::Error toError(Napi::Env env, const Error& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("call", Napi::String::New(env, error.call()));
  const char* codes[] = {"ERR_DEVICE", "ERR_ARGUMENT", "ERR_DTYPE", "ERR_MEMORY"};
  result.Set("code", Napi::String::New(env, codes[error.kind()]));
  return result;
}

}  // namespace seresnet::node
