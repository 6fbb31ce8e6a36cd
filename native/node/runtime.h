#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "runtime/backend.h"

namespace seresnet::node {

// The runtime's objects as JavaScript holds them: opaque handles, tagged with their type. What takes time is done on the
// device's executor thread, in the order of the calls, and answered through a promise.

// A device's handle. The backend is made here and lives as long as anything on the device.
Napi::Value open(Napi::Env env, std::unique_ptr<Backend> backend);

// halt(device): for a process that ends. Drops what has not started and returns when what has is done, after ten seconds at
// the latest; nothing is done later.
Napi::Value halt(const Napi::CallbackInfo& info);

// upload(device, array, dtype): Promise<buffer>
Napi::Value upload(const Napi::CallbackInfo& info);

// read(buffer): Promise<typed array>
Napi::Value read(const Napi::CallbackInfo& info);

// release(buffer): frees its contents as soon as no read or run under way needs them
Napi::Value release(const Napi::CallbackInfo& info);

// load(device, plan, constants, options): Promise<program>. The constants are not copied: they must not change until then.
Napi::Value load(const Napi::CallbackInfo& info);

// run(program, inputs, variables, shared): { id, result: Promise<{ outputs, written }> }. Inputs that are shared must not change
// until then, nor their memory go.
Napi::Value run(const Napi::CallbackInfo& info);

// profile(program, inputs, variables): { id, result: Promise<times> }, a run that tells what each kernel took
Napi::Value profile(const Napi::CallbackInfo& info);

// time(program, inputs, variables, { rounds, calls, scratch }): { id, result: Promise<timing> }, many runs with everything on
// the device
Napi::Value time(const Napi::CallbackInfo& info);

// drop(device, id, reason): whether the run had not started and is dropped; its promise then rejects with the reason
Napi::Value drop(const Napi::CallbackInfo& info);

// dispose(program): Promise<void>, when its memory is free
Napi::Value dispose(const Napi::CallbackInfo& info);

// kernels(program): string[], what runs each of its kernels
Napi::Value kernels(const Napi::CallbackInfo& info);

}  // namespace seresnet::node
