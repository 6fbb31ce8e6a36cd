#include "faults_host.h"

#include <cstdlib>
#include <mutex>
#include <sstream>
#include <vector>

namespace seresnet::host {

namespace {

struct Fault {
  std::string what, name;
  uint64_t only = 0;  // 0: each time
  uint64_t met = 0;
};

std::vector<Fault> parse(const char* list) {
  std::vector<Fault> faults;
  std::istringstream words(list == nullptr ? "" : list);
  for (std::string word; std::getline(words, word, ';');) {
    Fault fault;
    const size_t colon = word.find(':'), at = word.rfind('@');
    fault.what = word.substr(0, colon);
    if (colon != std::string::npos) fault.name = word.substr(colon + 1, at == std::string::npos ? at : at - colon - 1);
    if (at != std::string::npos) fault.only = std::strtoull(word.c_str() + at + 1, nullptr, 10);
    faults.push_back(fault);
  }
  return faults;
}

std::vector<Fault>& faults() {
  static std::vector<Fault> all = parse(std::getenv("SERESNET_SIM_FAULT"));
  return all;
}

std::mutex counting;

}  // namespace

bool fails(const std::string& what, const std::string& name) {
  const std::lock_guard lock(counting);
  bool failing = false;
  for (Fault& fault : faults()) {
    if (fault.what != what || name.find(fault.name) == std::string::npos) continue;
    ++fault.met;
    failing = failing || fault.only == 0 || fault.only == fault.met;
  }
  return failing;
}

size_t limitOf(const std::string& what, size_t otherwise) {
  for (const Fault& fault : faults())
    if (fault.what == what) return std::strtoull(fault.name.c_str(), nullptr, 10);
  return otherwise;
}

}  // namespace seresnet::host
