#include "cuda.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "cuda/gpu/runtime.h"
#include "cudnn.h"
#include "driver.h"

namespace seresnet::cuda {

namespace {

const Problem kNoCuda{"this build has no CUDA: nvcc was not there when it was built, or SERESNET_CUDA=0 left it out",
                      "{cuda}", "ERR_CUDA_BUILD"};
const Problem kNoCudnnHeaders{"this build has no convolutions for CUDA: cuDNN's headers were not there when it was built",
                              "{cudnn}, then: {build}", "ERR_CUDNN_BUILD"};

// Machine code runs on its own major version from its minor on; PTX runs on everything at least as new.
bool runsOn(const RuntimeInfo& info, const Gpu& gpu) {
  const int capability = gpu.major * 10 + gpu.minor;
  return std::any_of(info.archs.begin(), info.archs.end(), [&](const Arch& arch) {
    return arch.capability <= capability && (arch.ptx || arch.capability / 10 == gpu.major);
  });
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string gigabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f GiB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

}  // namespace

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::vector<DeviceInfo> devices(const std::vector<std::string>& candidates) {
  const std::optional<RuntimeInfo> built = runtime();
  const DriverReport driver = probeDriver();
  const CudnnReport cudnn = findCudnn(candidates, !driver.gpus.empty());

  // What holds for every GPU of the machine.
  DeviceInfo machine;
  machine.name = "cuda";
  machine.description = "NVIDIA GPU";
  if (!built) machine.problems.push_back(kNoCuda);
  if (driver.problem) machine.problems.push_back(*driver.problem);
  if (built && driver.version && *driver.version / 1000 < built->version / 1000) {
    machine.problems.push_back(
        {"the NVIDIA driver is too old: it speaks CUDA " + versionText(*driver.version) + ", this build needs CUDA " +
             std::to_string(built->version / 1000),
         "install a newer NVIDIA driver, then check with: nvidia-smi", "ERR_CUDA_DRIVER_TOO_OLD"});
  }
  if (driver.version) machine.details.emplace_back("driver", "CUDA " + versionText(*driver.version));
  if (built) {
    machine.details.emplace_back("runtime", "CUDA " + versionText(built->version));
    machine.details.emplace_back("archs", archNames(*built));
  }
  if (cudnn.problem) {
    machine.details.emplace_back("cudnnTried", cudnn.tried);
  } else {
    if (!cudnn.version.empty()) machine.details.emplace_back("cudnn", cudnn.version);
    machine.details.emplace_back("cudnnPath", cudnn.path);
  }

  const auto finish = [&](DeviceInfo& device) {
    if (cudnn.problem) device.problems.push_back(*cudnn.problem);
    if (built && !cudnnHeaders()) device.problems.push_back(kNoCudnnHeaders);
    if (device.problems.empty()) device.details.emplace_back("note", "built, never run on a GPU");
  };

  if (driver.gpus.empty()) {
    finish(machine);
    return {machine};
  }
  std::vector<DeviceInfo> all;
  for (const Gpu& gpu : driver.gpus) {
    DeviceInfo device = machine;
    const std::string capability = std::to_string(gpu.major) + "." + std::to_string(gpu.minor);
    device.index = static_cast<int>(all.size());
    device.description = gpu.name + ", " + gigabytes(gpu.memory) + ", compute capability " + capability;
    device.details.emplace_back("computeCapability", capability);
    device.details.emplace_back("memoryBytes", static_cast<double>(gpu.memory));
    if (built && !runsOn(*built, gpu)) {
      device.problems.push_back({"this build has no code for compute capability " + capability + ": it holds " +
                                     joined(archNames(*built)),
                                 "SERESNET_CUDA_ARCHS=" + std::to_string(gpu.major * 10 + gpu.minor) +
                                     " {build}", "ERR_CUDA_CAPABILITY"});
    }
    finish(device);
    all.push_back(device);
  }
  return all;
}

}  // namespace seresnet::cuda
