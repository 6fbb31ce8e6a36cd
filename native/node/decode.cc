#include "decode.h"

#include <cmath>
#include <cstring>

#include "runtime/errors.h"

namespace seresnet::node {

namespace {

constexpr uint32_t mostItems = 1U << 20;        // slots, steps, or indices in a list
constexpr size_t mostDims = 8;
constexpr int64_t mostElements = int64_t{1} << 40;

[[noreturn]] void refuse(const std::string& what, const std::string& wanted) {
  throw Error("plan", "expected " + what + " to be " + wanted);
}

Napi::Object object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) refuse(what, "an object");
  return value.As<Napi::Object>();
}

Napi::Array array(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) refuse(what, "an array");
  const Napi::Array list = value.As<Napi::Array>();
  if (list.Length() > mostItems) refuse(what, "of at most " + std::to_string(mostItems) + " items");
  return list;
}

std::string text(const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) refuse(what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

double number(const Napi::Value& value, const std::string& what) {
  if (!value.IsNumber()) refuse(what, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

int64_t integer(const Napi::Value& value, const std::string& what, int64_t most) {
  const double got = number(value, what);
  if (!(got >= 0 && got <= static_cast<double>(most)) || got != std::floor(got))
    refuse(what, "an integer from 0 to " + std::to_string(most));
  return static_cast<int64_t>(got);
}

std::vector<uint32_t> indices(const Napi::Object& owner, const char* name) {
  const Napi::Array list = array(owner.Get(name), name);
  std::vector<uint32_t> values(list.Length());
  for (uint32_t i = 0; i < values.size(); ++i) {
    const Napi::HandleScope scope(owner.Env());
    values[i] = static_cast<uint32_t>(integer(list.Get(i), std::string(name) + " to hold slots, each", mostItems));
  }
  return values;
}

Slot toSlot(const Napi::Object& value) {
  const Napi::Array extents = array(value.Get("shape"), "a slot's shape");
  if (extents.Length() > mostDims) refuse("a slot's shape", "of at most " + std::to_string(mostDims) + " dims");
  Slot slot{{}, toDType(value.Get("dtype"))};
  int64_t size = 1;
  for (uint32_t i = 0; i < extents.Length(); ++i) {
    const int64_t extent = integer(extents.Get(i), "a slot's extent", mostElements);
    if (extent > 0 && size > mostElements / extent)
      refuse("a slot", "of at most " + std::to_string(mostElements) + " elements");
    size *= extent;
    slot.shape.push_back(extent);
  }
  return slot;
}

Attribute toAttribute(const Napi::Value& value, const std::string& name) {
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (!value.IsArray()) return number(value, "the attribute " + name);
  const Napi::Array list = array(value, "the attribute " + name);
  std::vector<double> values(list.Length());
  for (uint32_t i = 0; i < values.size(); ++i) values[i] = number(list.Get(i), "the attribute " + name);
  return values;
}

Step toStep(const Napi::Object& value) {
  Step step;
  step.op = text(value.Get("op"), "a step's op");
  const Napi::Object attributes = object(value.Get("attributes"), "a step's attributes");
  const Napi::Array names = attributes.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = text(names.Get(i), "an attribute's name");
    const Napi::Value attribute = attributes.Get(name);
    if (!attribute.IsUndefined()) step.attributes.emplace(name, toAttribute(attribute, name));
  }
  step.inputs = indices(value, "inputs");
  step.outputs = indices(value, "outputs");
  return step;
}

napi_typedarray_type arrayType(DType dtype) {
  switch (dtype) {
    case DType::int32:
      return napi_int32_array;
    case DType::int64:
      return napi_bigint64_array;
    case DType::uint8:
      return napi_uint8_array;
    default:
      return napi_float32_array;
  }
}

struct ArrayInfo {
  napi_typedarray_type type;
  size_t length;
  void* data;
};

ArrayInfo arrayInfo(const Napi::Value& value, const std::string& what) {
  ArrayInfo info{};
  if (!value.IsTypedArray()) throw Error(what, "expected a typed array");
  if (napi_get_typedarray_info(value.Env(), value, &info.type, &info.length, &info.data, nullptr, nullptr) != napi_ok)
    throw Error(what, "the typed array could not be read");
  return info;
}

}  // namespace

Plan toPlan(const Napi::Value& value) {
  const Napi::Object given = object(value, "a plan");
  Plan plan;
  const Napi::Array slots = array(given.Get("slots"), "slots");
  for (uint32_t i = 0; i < slots.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    plan.slots.push_back(toSlot(object(slots.Get(i), "a slot")));
  }
  plan.inputs = indices(given, "inputs");
  plan.constants = indices(given, "constants");
  plan.variables = indices(given, "variables");
  plan.outputs = indices(given, "outputs");
  plan.written = indices(given, "written");
  const Napi::Array steps = array(given.Get("steps"), "steps");
  for (uint32_t i = 0; i < steps.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    plan.steps.push_back(toStep(object(steps.Get(i), "a step")));
  }
  plan.validate();
  return plan;
}

LoadOptions toLoadOptions(const Napi::Value& value) {
  LoadOptions options;
  if (value.IsUndefined()) return options;
  const Napi::Object given = object(value, "options");
  const Napi::Value threads = given.Get("threads");
  if (!threads.IsUndefined()) options.threads = static_cast<int>(integer(threads, "threads", 1024));
  const Napi::Value compute = given.Get("compute");
  if (!compute.IsUndefined()) options.compute = text(compute, "compute");
  const Napi::Value names = given.Get("names");
  if (!names.IsUndefined()) {
    const Napi::Array list = array(names, "names");
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::HandleScope scope(value.Env());
      options.names.push_back(text(list.Get(i), "a constant's name"));
    }
  }
  const Napi::Value convolution = given.Get("convolution");
  if (!convolution.IsUndefined()) options.convolution = text(convolution, "convolution");
  return options;
}

TimingOptions toTimingOptions(const Napi::Value& value) {
  constexpr int64_t most = 1000000;
  constexpr int64_t mostBytes = int64_t{1} << 40;
  TimingOptions options;
  if (value.IsUndefined()) return options;
  const Napi::Object given = object(value, "options");
  const auto has = [&](const char* name) { return !given.Get(name).IsUndefined(); };
  if (has("rounds")) options.rounds = static_cast<int>(integer(given.Get("rounds"), "rounds", most));
  if (has("calls")) options.calls = static_cast<int>(integer(given.Get("calls"), "calls", most));
  if (has("scratch")) options.scratch = static_cast<size_t>(integer(given.Get("scratch"), "scratch", mostBytes));
  if (options.rounds == 0 || options.calls == 0) refuse("rounds and calls", "at least 1");
  return options;
}

cuda::OpenOptions toCudaOptions(const Napi::Value& value) {
  constexpr int64_t mostDevices = 1024;
  constexpr int64_t mostBytes = int64_t{1} << 50;
  cuda::OpenOptions options;
  if (value.IsUndefined()) return options;
  const Napi::Object given = object(value, "options");
  const auto has = [&](const char* name) { return !given.Get(name).IsUndefined(); };
  const auto flag = [&](const char* name) {
    const Napi::Value answer = given.Get(name);
    if (!answer.IsBoolean()) refuse(name, "true or false");
    return answer.As<Napi::Boolean>().Value();
  };
  if (has("device")) options.device = static_cast<int>(integer(given.Get("device"), "device", mostDevices));
  if (has("memoryLimit"))
    options.memoryLimit = static_cast<size_t>(integer(given.Get("memoryLimit"), "memoryLimit", mostBytes));
  if (has("cudnn")) options.cudnn = text(given.Get("cudnn"), "cudnn");
  if (has("cache")) options.cache = text(given.Get("cache"), "cache");
  if (has("deterministic")) options.deterministic = flag("deterministic");
  if (has("autotune")) options.autotune = flag("autotune");
  return options;
}

DType toDType(const Napi::Value& value) {
  const std::string name = text(value, "a dtype");
  const auto dtype = dtypeNamed(name);
  if (!dtype) refuse("a dtype", "known, got " + name);
  return *dtype;
}

int64_t lengthOf(const Napi::Value& value, const std::string& what) {
  return static_cast<int64_t>(arrayInfo(value, what).length);
}

namespace {

ArrayInfo checkedInfo(const Napi::Value& value, DType dtype, int64_t count, const std::string& what) {
  const ArrayInfo info = arrayInfo(value, what);
  if (info.type != arrayType(dtype)) throw Error(what, std::string("expected the host array of ") + nameOf(dtype));
  if (static_cast<int64_t>(info.length) != count)
    throw Error(what, "expected " + std::to_string(count) + " elements, got " + std::to_string(info.length));
  return info;
}

}  // namespace

std::shared_ptr<HostMemory> toHostMemory(const Napi::Value& value, DType dtype, int64_t count, const std::string& what) {
  const ArrayInfo info = checkedInfo(value, dtype, count, what);
  const size_t bytes = info.length * hostBytes(dtype);
  auto memory = std::make_shared<HostMemory>(bytes);
  if (bytes > 0) std::memcpy(memory->data(), info.data, bytes);
  if (isFloat(dtype)) roundTo(dtype, memory->data<float>(), count);
  return memory;
}

std::shared_ptr<HostMemory> borrow(const Napi::Value& value, DType dtype, int64_t count, const std::string& what,
                                   const Keep& keep) {
  if (dtype == DType::float16 || dtype == DType::bfloat16) return toHostMemory(value, dtype, count, what);
  const ArrayInfo info = checkedInfo(value, dtype, count, what);
  return std::make_shared<HostMemory>(info.data, info.length * hostBytes(dtype), keep(value));
}

namespace {

constexpr size_t handedOver = size_t{1} << 20;  // from here on contents are not copied

// Null where this runtime takes no memory of others.
napi_value arrayBufferOver(Napi::Env env, std::shared_ptr<HostMemory> contents) {
  auto owner = std::make_unique<std::shared_ptr<HostMemory>>(std::move(contents));
  const HostMemory& memory = **owner;
  const auto release = [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<HostMemory>*>(hint); };
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, memory.data(), memory.bytes(), release, owner.get(), &buffer) != napi_ok)
    return nullptr;
  owner.release();
  return buffer;
}

}  // namespace

Napi::Value toTypedArray(Napi::Env env, DType dtype, std::shared_ptr<HostMemory> contents) {
  const size_t bytes = contents->bytes();
  // V8 ends the process when it cannot allocate an array, and a large copy would hold up the JavaScript thread.
  napi_value buffer = bytes >= handedOver ? arrayBufferOver(env, contents) : nullptr;
  if (buffer == nullptr) {
    Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, bytes);
    if (bytes > 0) std::memcpy(copy.Data(), contents->data(), bytes);
    buffer = copy;
  }
  napi_value view = nullptr;
  const size_t length = bytes / hostBytes(dtype);
  if (napi_create_typedarray(env, arrayType(dtype), length, buffer, 0, &view) != napi_ok)
    throw Error("result", std::to_string(bytes) + " bytes could not be handed to JavaScript");
  return Napi::Value(env, view);
}

}  // namespace seresnet::node
