#include "driver.h"

#include "runtime/errors.h"
#include "runtime/library.h"

namespace seresnet::cuda {

namespace {

// The few names of cuda.h used here, so that devices are listed by builds that have no CUDA headers.
using Status = int;
using Device = int;
constexpr Status kSuccess = 0;
constexpr Status kNoDevice = 100;
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;

class Driver {
 public:
  Driver() : library_("libcuda.so.1"), errorName_(library_.symbol<ErrorName>("cuGetErrorName")) {}

  template <typename... Arguments>
  Status status(const char* name, Arguments... arguments) const {
    return library_.symbol<Status (*)(Arguments...)>(name)(arguments...);
  }

  template <typename... Arguments>
  void call(const char* name, Arguments... arguments) const {
    const Status code = status(name, arguments...);
    if (code != kSuccess) throw Error(name, describe(code));
  }

  std::string describe(Status code) const {
    const char* text = nullptr;
    errorName_(code, &text);
    return (text != nullptr ? std::string(text) : "unknown error") + " (" + std::to_string(code) + ")";
  }

 private:
  using ErrorName = Status (*)(Status, const char**);

  Library library_;
  ErrorName errorName_;
};

Gpu describeGpu(const Driver& driver, int index) {
  Device device = 0;
  driver.call("cuDeviceGet", &device, index);
  Gpu gpu;
  char name[256] = {};
  driver.call("cuDeviceGetName", static_cast<char*>(name), static_cast<int>(sizeof name - 1), device);
  gpu.name = name;
  driver.call("cuDeviceGetAttribute", &gpu.major, kComputeCapabilityMajor, device);
  driver.call("cuDeviceGetAttribute", &gpu.minor, kComputeCapabilityMinor, device);
  driver.call("cuDeviceTotalMem_v2", &gpu.memory, device);
  return gpu;
}

const Problem kNoDriver{"no NVIDIA driver: libcuda.so.1 could not be loaded",
                        "install the NVIDIA driver (Debian: apt-get install nvidia-driver), then check with: nvidia-smi", "ERR_CUDA_NO_DRIVER"};
const Problem kNoGpu{"no NVIDIA GPU: the driver finds none", "check with: nvidia-smi", "ERR_CUDA_NO_DEVICE"};

}  // namespace

DriverReport probeDriver() {
  DriverReport report;
  try {
    const Driver driver;
    int version = 0;
    driver.call("cuDriverGetVersion", &version);
    report.version = version;

    const Status started = driver.status("cuInit", 0U);
    int count = 0;
    if (started == kSuccess) {
      driver.call("cuDeviceGetCount", &count);
    } else if (started != kNoDevice) {
      throw Error("cuInit", driver.describe(started));
    }
    for (int index = 0; index < count; ++index) report.gpus.push_back(describeGpu(driver, index));
    if (count == 0) report.problem = kNoGpu;
  } catch (const Error& error) {
    if (error.call() == "dlopen") {
      report.problem = kNoDriver;
    } else {
      report.problem = Problem{"the NVIDIA driver does not work: " + std::string(error.what()),
                               "check with: nvidia-smi; reload or reinstall the driver, or restart the machine",
                               "ERR_CUDA_DRIVER"};
    }
  }
  return report;
}

}  // namespace seresnet::cuda
