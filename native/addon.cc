// Table of contents of the addon: one line per export. Node makes one Addon for each environment that loads it (the main
// thread and every worker), so state that belongs to an environment is a member here and nothing is global.

#include <napi.h>

#include "cpu/device/backend.h"
#include "cpu/device/onednn.h"
#include "cuda/device/backend.h"
#include "cuda/gpu/runtime.h"
#include "devices/cpu.h"
#include "devices/cuda.h"
#include "devices/cudnn.h"
#include "devices/cudnn_support.h"
#include "node/convert.h"
#include "node/convolution.h"
#include "node/decode.h"
#include "node/images.h"
#include "node/runtime.h"
#include "runtime/errors.h"

namespace seresnet {

#ifdef SERESNET_CUDA_SIM
constexpr bool simulates = true;  // the CUDA executor is there with its kernels run on the host, for tests
#else
constexpr bool simulates = false;
#endif
constexpr const char* cudaName = simulates ? "cuda-sim" : "cuda";

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env, Napi::Object exports) {
    DefineAddon(exports, {
                             InstanceMethod("listDevices", &Addon::listDevices),
                             InstanceMethod("versions", &Addon::versions),
                             InstanceMethod("ops", &Addon::ops),
                             InstanceMethod("cudnnSupport", &Addon::cudnnSupport),
                             InstanceMethod("open", &Addon::open),
                             InstanceMethod("halt", &Addon::call<node::halt>),
                             InstanceMethod("upload", &Addon::call<node::upload>),
                             InstanceMethod("read", &Addon::call<node::read>),
                             InstanceMethod("release", &Addon::call<node::release>),
                             InstanceMethod("load", &Addon::call<node::load>),
                             InstanceMethod("run", &Addon::call<node::run>),
                             InstanceMethod("profile", &Addon::call<node::profile>),
                             InstanceMethod("time", &Addon::call<node::time>),
                             InstanceMethod("drop", &Addon::call<node::drop>),
                             InstanceMethod("dispose", &Addon::call<node::dispose>),
                             InstanceMethod("kernels", &Addon::call<node::kernels>),
                             InstanceMethod("openImages", &Addon::call<node::openImages>),
                             InstanceMethod("prepareImage", &Addon::call<node::prepareImage>),
                             InstanceMethod("prepareImageHere", &Addon::call<node::prepareImageHere>),
                         });
  }

 private:
  // listDevices(cudnn?: string[]): every device, CUDA first; `cudnn` lists the places where cuDNN may be.
  Napi::Value listDevices(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return node::guarded(env, [&]() -> Napi::Value {
      std::vector<DeviceInfo> all = cuda::devices(node::toStrings(info[0], "listDevices"));
      for (const DeviceInfo& device : cpu::devices()) all.push_back(device);
      if (simulates) all.push_back({"cuda-sim", 0, "the CUDA executor with its kernels run on the host, for tests", {}, {}});
      Napi::Array list = Napi::Array::New(env, all.size());
      for (uint32_t i = 0; i < all.size(); ++i) list.Set(i, node::toObject(env, all[i]));
      return list;
    });
  }

  // cudnnSupport(file, properties, convolutions): how cuDNN could compute each of them on a device that need not be there.
  Napi::Value cudnnSupport(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return node::guarded(env, [&]() -> Napi::Value {
      if (!info[0].IsString() || !info[1].IsString()) throw Error("cudnnSupport", "expected a file and JSON");
      const auto all = cuda::cudnnSupport(info[0].As<Napi::String>().Utf8Value(),
                                          info[1].As<Napi::String>().Utf8Value(), node::toConvolutions(info[2]));
      Napi::Array list = Napi::Array::New(env, all.size());
      for (uint32_t i = 0; i < all.size(); ++i) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("convolution", all[i].convolution);
        object.Set("configurations", all[i].configurations);
        object.Set("compiled", all[i].compiled);
        object.Set("plan", all[i].plan);
        object.Set("milliseconds", all[i].milliseconds);
        list.Set(i, object);
      }
      return list;
    });
  }

  // ops(device): the names of the ops that a device has kernels for; none where this build has no executor for it.
  Napi::Value ops(const Napi::CallbackInfo& info) {
    return node::guarded(info.Env(), [&]() -> Napi::Value {
      const std::string device = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
      std::vector<std::string> names;
      if (device == "cpu") names = cpu::opNames();
      if (device == cudaName) names = cuda::opNames();
      return node::toArray(info.Env(), names);
    });
  }

  template <Napi::Value (*function)(const Napi::CallbackInfo&)>
  Napi::Value call(const Napi::CallbackInfo& info) {
    return node::guarded(info.Env(), [&] { return function(info); });
  }

  // open(device, options?): the handle of a device of its own, with its thread. Only "cuda" takes options.
  Napi::Value open(const Napi::CallbackInfo& info) {
    return node::guarded(info.Env(), [&]() -> Napi::Value {
      const std::string device = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
      std::unique_ptr<Backend> backend;
      if (device == "cpu") backend = cpu::makeBackend();
      if (device == cudaName) backend = cuda::makeBackend(node::toCudaOptions(info[1]));
      if (!backend) throw Error("open", "this build has no executor for that device");
      return node::open(info.Env(), std::move(backend));
    });
  }

  // versions(): what this addon was built from, and which versions it runs on.
  Napi::Value versions(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return node::guarded(env, [&]() -> Napi::Value {
      Napi::Object all = Napi::Object::New(env);
      all.Set("builtBy", SERESNET_BUILT_BY);
      all.Set("napi", NAPI_VERSION);
      for (const char* part : {"onednn", "cuda", "cudnn"}) all.Set(part, env.Null());
      if (const auto onednn = cpu::onednn()) {
        Napi::Object part = Napi::Object::New(env);
        part.Set("compiled", onednn->compiled);
        part.Set("runtime", onednn->runtime);
        part.Set("threading", onednn->threading);
        all.Set("onednn", part);
      }
      if (const auto runtime = cuda::runtime()) {
        Napi::Object part = Napi::Object::New(env);
        part.Set("archs", node::toArray(env, cuda::archNames(*runtime)));
        part.Set("runtime", cuda::versionText(runtime->version));
        all.Set("cuda", part);
      }
      if (const auto headers = cuda::cudnnHeaders()) {
        Napi::Object part = Napi::Object::New(env);
        part.Set("compiled", *headers);
        all.Set("cudnn", part);
      }
      return all;
    });
  }
};

}  // namespace seresnet

using seresnet::Addon;
NODE_API_ADDON(Addon)
