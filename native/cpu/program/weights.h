#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "runtime/memory.h"

namespace seresnet::cpu {

// What programs of one device computed from constants, by a name that says what from and how: programs of one model for
// several shapes share it. Alive as long as a program holds it.
class Weights {
 public:
  std::shared_ptr<HostMemory> find(const std::string& name) const {
    const auto found = known_.find(name);
    return found == known_.end() ? nullptr : found->second.lock();
  }

  void add(std::string name, const std::shared_ptr<HostMemory>& contents) {
    std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
    known_.insert_or_assign(std::move(name), contents);
  }

 private:
  std::map<std::string, std::weak_ptr<HostMemory>> known_;
};

}  // namespace seresnet::cpu
