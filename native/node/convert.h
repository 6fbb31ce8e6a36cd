#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/device.h"
#include "runtime/errors.h"

namespace seresnet::node {

Napi::Object toObject(Napi::Env env, const DeviceInfo& device);
Napi::Object toObject(Napi::Env env, const Timing& timing);
Napi::Array toArray(Napi::Env env, const std::vector<std::string>& strings);
Napi::Array toArray(Napi::Env env, const std::vector<double>& numbers);
Napi::Array toArray(Napi::Env env, const std::vector<KernelTime>& times);

// An array of strings; nothing at all counts as an empty one. Throws a TypeError that names `what`.
std::vector<std::string> toStrings(const Napi::Value& value, const std::string& what);

// A JavaScript Error with the failing call in its property `call` and our error code in `code`.
Napi::Error toError(Napi::Env env, const Error& error);

// In a handler: what C++ threw, as our own exception. What the allocator refuses is a want of memory.
Error currentError();

// Runs `body`, turning whatever C++ throws into a JavaScript exception.
template <typename Body>
Napi::Value guarded(Napi::Env env, Body&& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception&) {
    throw toError(env, currentError());
  }
}

}  // namespace seresnet::node
