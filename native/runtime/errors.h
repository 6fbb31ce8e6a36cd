#pragma once

#include <stdexcept>
#include <string>

namespace seresnet {

// The one exception of the native code. `call` is the library call or the step that failed, `what()` the whole sentence.
class Error : public std::runtime_error {
 public:
  Error(std::string call, const std::string& why);

  const std::string& call() const noexcept { return call_; }
  const std::string& why() const noexcept { return why_; }

 private:
  std::string call_;
  std::string why_;
};

}  // namespace seresnet
