#include "library.h"

#include <dlfcn.h>

#include "errors.h"

namespace seresnet {

namespace {

std::string lastError() {
  const char* text = dlerror();
  return text != nullptr ? text : "unknown error";
}

}  // namespace

Library::Library(const std::string& name) : handle_(dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
  if (handle_ == nullptr) throw Error("dlopen", lastError());
}

void* Library::address(const char* name) const {
  void* found = dlsym(handle_, name);
  if (found == nullptr) throw Error("dlsym", lastError());
  return found;
}

std::string fileOf(const void* function) {
  Dl_info info{};
  return dladdr(function, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

}  // namespace seresnet
