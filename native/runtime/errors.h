#pragma once

#include <stdexcept>
#include <string>

namespace seresnet {

// The one exception of the native code. `call` is the library call or the step that failed, `what()` the whole sentence.
class Error : public std::runtime_error {
 public:
  // The class of lib/errors.ts that JavaScript gets.
  enum Kind { device, argument, dtype, memory };

  Error(std::string call, const std::string& why, Kind kind = device);

  const std::string& call() const noexcept { return call_; }
  const std::string& why() const noexcept { return why_; }
  Kind kind() const noexcept { return kind_; }

 private:
  std::string call_;
  std::string why_;
  Kind kind_;
};

}  // namespace seresnet
