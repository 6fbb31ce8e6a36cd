#include "cudnn.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "runtime/errors.h"
#include "runtime/library.h"

#ifdef SERESNET_CUDNN_HEADERS
#include <cudnn_version.h>
#endif

namespace seresnet::cuda {

namespace {

constexpr std::size_t kMajor = 9;
constexpr const char* kGraph = "libcudnn_graph.so.9";
constexpr const char* kFix =
    "install it ({cudnn}), or set SERESNET_CUDNN to libcudnn.so.9 or to the folder that holds it";

using GetVersion = std::size_t (*)();

// The loader's messages begin with the file more often than not.
std::string reason(const std::string& file, const Error& error) {
  const std::string prefix = file + ": ";
  return error.why().starts_with(prefix) ? error.why().substr(prefix.size()) : error.why();
}

// The digits that a library's file name ends in: "9.24.0" of libcudnn.so.9.24.0, "" of libcudnn.so.
std::string versionInName(const std::filesystem::path& file) {
  std::error_code ignored;
  const std::string name = std::filesystem::canonical(file, ignored).filename().string();
  const auto suffix = name.find(".so.");
  return suffix == std::string::npos ? "" : name.substr(suffix + 4);
}

struct Version {
  std::size_t major, minor, patch;

  std::string text() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  }
};

}  // namespace

Library openGraph(const std::filesystem::path& folder) {
  const std::string beside = (folder / kGraph).string();
  try {
    return Library(beside);
  } catch (const Error& error) {
    const std::string why = "with " + beside + ": " + reason(beside, error);
    try {
      return Library(kGraph);
    } catch (const Error&) {
      throw Error("dlopen", why);
    }
  }
}

CudnnReport findCudnn(const std::vector<std::string>& candidates, bool load) {
  CudnnReport report;
  std::string other;  // the first cuDNN found that has the wrong version
  const auto refuse = [&](const std::string& candidate, const std::string& version) {
    report.tried.push_back(candidate + " (cuDNN " + version + ")");
    if (other.empty()) other = version + " at " + candidate;
  };
  for (const std::string& candidate : candidates) {
    try {
      const auto entry = Library(candidate).symbol<void*>("cudnnGetVersion");
      const std::string file = fileOf(entry);
      const std::string named = versionInName(file);
      if (!named.empty() && std::strtoul(named.c_str(), nullptr, 10) != kMajor) {
        refuse(candidate, named);
        continue;
      }
      if (!load) {
        report.path = file;
        return report;
      }
      const Library graph = openGraph(std::filesystem::path(file).parent_path());
      const std::size_t number = graph.symbol<GetVersion>("cudnnGetVersion")();
      const Version version{number / 10000, number % 10000 / 100, number % 100};
      if (version.major != kMajor) {
        refuse(candidate, version.text());
        continue;
      }
      report.path = file;
      report.version = version.text();
      return report;
    } catch (const Error& error) {
      report.tried.push_back(candidate + " (" + reason(candidate, error) + ")");
    }
  }
  const std::string places = std::to_string(report.tried.size()) + (report.tried.size() == 1 ? " place" : " places");
  report.problem = other.empty() ? Problem{"no cuDNN 9: libcudnn.so.9 could not be loaded from any of " + places, kFix, "ERR_CUDNN_MISSING"}
                                 : Problem{"cuDNN has the wrong version: expected 9, got " + other, kFix, "ERR_CUDNN_VERSION"};
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
