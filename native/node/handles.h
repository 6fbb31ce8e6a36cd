#pragma once

#include <napi.h>

#include <string>
#include <utility>

#include "runtime/errors.h"

namespace seresnet::node {

// Opaque handles: a T as JavaScript holds it, tagged with its type. A T has `device`, the Jobs it belongs to, `tag`, `name`
// and `bytes()`, what it holds outside of JavaScript's memory.

inline void adjustExternalMemory(Napi::Env env, int64_t change) {
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

}  // namespace seresnet::node
