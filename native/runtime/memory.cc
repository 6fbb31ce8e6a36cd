#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>

#include "errors.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace seresnet {

namespace {

constexpr size_t line = 64;
constexpr size_t hugePage = size_t{2} << 20;
constexpr size_t large = size_t{64} << 20;

size_t roundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Bytes that can be had without swapping or being killed, as far as the system says.
size_t availableBytes() {
  size_t available = std::numeric_limits<size_t>::max();
  std::ifstream info("/proc/meminfo");
  for (std::string key, unit; info >> key;) {
    size_t kilobytes = 0;
    if (key == "MemAvailable:" && info >> kilobytes) available = kilobytes * 1024;
    if (key == "MemAvailable:") break;
    std::getline(info, unit);
  }
  size_t limit = 0;
  size_t used = 0;
  std::ifstream limitFile("/sys/fs/cgroup/memory.max");  // holds "max" where there is no limit
  std::ifstream usedFile("/sys/fs/cgroup/memory.current");
  if (limitFile >> limit && usedFile >> used) available = std::min(available, limit > used ? limit - used : 0);
  return available;
}

}  // namespace

HostMemory::HostMemory(size_t bytes) : Memory(bytes), data_(nullptr) {
  const bool huge = bytes >= 2 * hugePage;
  const size_t unit = huge ? hugePage : line;
  const bool fits = bytes < std::numeric_limits<size_t>::max() / 2 && (bytes < large || bytes < availableBytes());
  if (fits) data_ = std::aligned_alloc(unit, roundUp(std::max<size_t>(bytes, 1), unit));
  if (data_ == nullptr) throw Error("memory", std::to_string(bytes) + " bytes could not be allocated");
#ifdef __linux__
  if (huge) madvise(data_, roundUp(bytes, unit), MADV_HUGEPAGE);
#endif
}

HostMemory::~HostMemory() { std::free(data_); }

void HostMemory::prefault() const noexcept {
  volatile char* bytes = data<char>();
  for (size_t i = 0; i < this->bytes(); i += 4096) bytes[i] = 0;
}

size_t placeBlocks(std::vector<Block>& blocks) {
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (blocks[a].bytes != blocks[b].bytes) return blocks[a].bytes > blocks[b].bytes;
    return blocks[a].first != blocks[b].first ? blocks[a].first < blocks[b].first : a < b;
  });
  std::vector<const Block*> placed;  // in order of offset
  size_t total = 0;
  for (const size_t index : order) {
    Block& block = blocks[index];
    const size_t bytes = roundUp(block.bytes, line);
    block.offset = 0;
    for (const Block* other : placed) {
      if (other->last < block.first || block.last < other->first) continue;
      if (block.offset + bytes <= other->offset) break;
      block.offset = std::max(block.offset, other->offset + roundUp(other->bytes, line));
    }
    const auto place = std::find_if(placed.begin(), placed.end(),
                                    [&](const Block* other) { return other->offset > block.offset; });
    placed.insert(place, &block);
    total = std::max(total, block.offset + bytes);
  }
  return total;
}

}  // namespace seresnet
