#pragma once

#include <string>

namespace seresnet {

// A shared library found at run time. It is never closed: CUDA's and cuDNN's libraries run threads and exit handlers of
// their own and do not survive dlclose.
class Library {
 public:
  // Opens `name`, a path or a name for the loader to look up. Throws Error("dlopen", …).
  explicit Library(const std::string& name);

  // The function `name` as type F. Throws Error("dlsym", …).
  template <typename F>
  F symbol(const char* name) const {
    return reinterpret_cast<F>(address(name));
  }

 private:
  void* address(const char* name) const;

  void* handle_;
};

// The file that holds the code at `function`, or "" if the loader does not know.
std::string fileOf(const void* function);

}  // namespace seresnet
