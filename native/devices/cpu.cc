#include "cpu.h"

#include "cpu/device/onednn.h"
#include "runtime/threads.h"

namespace seresnet::cpu {

std::vector<DeviceInfo> devices() {
  const int threads = availableThreads();
  DeviceInfo cpu;
  cpu.name = "cpu";
  cpu.description = "CPU, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
  cpu.details.emplace_back("threads", static_cast<double>(threads));

  if (const auto found = onednn()) {
    cpu.description += ", oneDNN " + found->runtime + " (" + found->isa + ")";
    cpu.details.emplace_back("onednn", found->runtime);
    cpu.details.emplace_back("isa", found->isa);
    cpu.details.emplace_back("threading", found->threading);
  } else {
    cpu.problems.push_back({"this build has no oneDNN: its headers were not there when it was built",
                            "{cpu}"});
  }
  return {cpu};
}

}  // namespace seresnet::cpu
