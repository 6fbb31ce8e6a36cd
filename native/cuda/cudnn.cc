#include "cudnn.h"

#include "../runtime/errors.h"
#include "../runtime/library.h"

#ifdef SERESNET_CUDNN_HEADERS
#include <cudnn_version.h>
#endif

namespace seresnet::cuda {

namespace {

constexpr std::size_t kMajor = 9;
constexpr const char* kFix =
    "install it (npm run setup -- --cuda), or set SERESNET_CUDNN to libcudnn.so.9 or to the folder that holds it";

struct Version {
  std::size_t major, minor, patch;

  std::string text() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  }
};

// cuDNN counts 1000 * major + 100 * minor + patch up to version 8, and 10000 * major from 9 on.
Version decode(std::size_t number) {
  const std::size_t unit = number < 90000 ? 1000 : 10000;
  return {number / unit, number % unit / 100, number % 100};
}

}  // namespace

CudnnReport findCudnn(const std::vector<std::string>& candidates) {
  CudnnReport report;
  std::string other;  // the first cuDNN found that has the wrong version
  for (const std::string& candidate : candidates) {
    try {
      using GetVersion = std::size_t (*)();
      const auto getVersion = Library(candidate).symbol<GetVersion>("cudnnGetVersion");
      const Version version = decode(getVersion());
      const std::string file = fileOf(reinterpret_cast<const void*>(getVersion));
      if (version.major == kMajor) {
        report.path = file.empty() ? candidate : file;
        report.version = version.text();
        return report;
      }
      report.tried.push_back(candidate + " (cuDNN " + version.text() + ")");
      if (other.empty()) other = version.text() + " at " + candidate;
    } catch (const Error& error) {
      const std::string prefix = candidate + ": ";  // the loader's messages begin with the file more often than not
      const std::string& why = error.why();
      report.tried.push_back(candidate + " (" + (why.starts_with(prefix) ? why.substr(prefix.size()) : why) + ")");
    }
  }
  const std::string places = std::to_string(report.tried.size()) + (report.tried.size() == 1 ? " place" : " places");
  report.problem = other.empty() ? Problem{"no cuDNN 9: libcudnn.so.9 could not be loaded from any of " + places, kFix}
                                 : Problem{"cuDNN has the wrong version: expected 9, got " + other, kFix};
  return report;
}

std::optional<std::string> cudnnHeaders() {
#ifdef SERESNET_CUDNN_HEADERS
  return Version{CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL}.text();
#else
  return std::nullopt;
#endif
}

}  // namespace seresnet::cuda
