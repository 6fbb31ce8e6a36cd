#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <vector>

#include "cuda/device/backend.h"
#include "runtime/backend.h"

namespace seresnet::node {

// The plan of lib/plan/plan.ts, checked for what memory safety needs. Throws Error.
Plan toPlan(const Napi::Value& value);

LoadOptions toLoadOptions(const Napi::Value& value);
TimingOptions toTimingOptions(const Napi::Value& value);

// What lib/devices/native/cuda.ts opens a device with; all of it may be left out.
cuda::OpenOptions toCudaOptions(const Napi::Value& value);

DType toDType(const Napi::Value& value);

// A copy of a typed array that must hold `count` elements of `dtype` (as host arrays do); `what` names it in errors.
std::shared_ptr<HostMemory> toHostMemory(const Napi::Value& value, DType dtype, int64_t count, const std::string& what);

// The same without a copy where the contents can be used as they are: `keep` is given the array and returns what lets go of
// it, which is called when nobody reads it any more.
using Keep = std::function<std::function<void()>(const Napi::Value&)>;
std::shared_ptr<HostMemory> borrow(const Napi::Value& value, DType dtype, int64_t count, const std::string& what,
                                   const Keep& keep);

// Elements of a typed array.
int64_t lengthOf(const Napi::Value& value, const std::string& what);

// A typed array for `dtype` that JavaScript may write to: the contents themselves, which must be nobody else's, or a copy.
Napi::Value toTypedArray(Napi::Env env, DType dtype, std::shared_ptr<HostMemory> contents);

}  // namespace seresnet::node
