#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "errors.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace seresnet {

namespace {

constexpr size_t line = 64;
constexpr size_t hugePage = size_t{2} << 20;
constexpr size_t page = 4096;
constexpr size_t mapped = size_t{1} << 20;  // from here on an allocation gets a mapping of its own
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
  const size_t available = bytes < large ? large : availableBytes();
  const bool fits = bytes < std::min(available, std::numeric_limits<size_t>::max() / 2);
#ifdef __linux__
  if (fits && bytes >= mapped) {
    // With room to start on the boundary of a huge page, so that whole ones can be used; no page is touched before its time.
    mapped_ = roundUp(bytes, page) + hugePage;
    void* start = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start != MAP_FAILED) {
      const size_t before = roundUp(reinterpret_cast<size_t>(start), hugePage) - reinterpret_cast<size_t>(start);
      const size_t after = hugePage - before;
      data_ = static_cast<char*>(start) + before;
      mapped_ -= hugePage;
      if (before > 0) munmap(start, before);
      if (after > 0) munmap(data<char>() + mapped_, after);
      if (bytes >= 2 * hugePage) madvise(data_, mapped_, MADV_HUGEPAGE);
    }
  } else
#endif
  if (fits) data_ = std::aligned_alloc(line, roundUp(std::max<size_t>(bytes, 1), line));
  if (data_ == nullptr)
    throw Error("memory", std::to_string(bytes) + " bytes could not be allocated" +
                              (fits ? "" : ": " + std::to_string(available) + " are available"), Error::memory);
}

HostMemory::HostMemory(const void* data, size_t bytes, std::function<void()> release)
    : Memory(bytes), data_(const_cast<void*>(data)), release_(std::move(release)) {}

HostMemory::~HostMemory() {
  if (release_) {
    release_();
    return;
  }
#ifdef __linux__
  if (mapped_ > 0) {
    munmap(data_, mapped_);
    return;
  }
#endif
  std::free(data_);
}

void requireRoom([[maybe_unused]] size_t bytes) {
#ifdef __linux__
  void* start = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED)
    throw Error("memory", "less than " + std::to_string(bytes >> 20) + " MiB of address space are left", Error::memory);
  munmap(start, bytes);
#endif
}

void HostMemory::prefault() const noexcept {
  volatile char* bytes = data<char>();
  for (size_t i = 0; i < this->bytes(); i += 4096) bytes[i] = 0;
}

std::shared_ptr<HostMemory> MemoryPool::take(size_t bytes) {
  std::unique_ptr<HostMemory> memory;
  {
    const std::lock_guard lock(mutex_);
    if (auto found = free_.extract(bytes)) memory = std::move(found.mapped());
  }
  if (!memory) memory = std::make_unique<HostMemory>(bytes);
  return {memory.release(), [weak = weak_from_this()](HostMemory* returned) {
            std::unique_ptr<HostMemory> owned(returned);
            const auto pool = weak.lock();
            if (!pool) return;
            const std::lock_guard lock(pool->mutex_);
            pool->free_.emplace(owned->bytes(), std::move(owned));
          }};
}

void MemoryPool::trim() {
  std::multimap<size_t, std::unique_ptr<HostMemory>> unused;
  const std::lock_guard lock(mutex_);
  unused.swap(free_);
}

SharedArena::Share::Share(std::shared_ptr<SharedArena> arena, size_t bytes) : arena_(std::move(arena)), bytes_(bytes) {
  arena_->join(bytes);
}

SharedArena::Share::~Share() { arena_->leave(bytes_); }

void SharedArena::join(size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (!memory_ || memory_->bytes() < bytes) {
    memory_ = nullptr;  // before there is more, so that there are never both
    memory_ = std::make_shared<HostMemory>(std::max(bytes, needs_.empty() ? 0 : *needs_.rbegin()));
    memory_->prefault();
  }
  needs_.insert(bytes);
}

void SharedArena::leave(size_t bytes) {
  const std::lock_guard lock(mutex_);
  needs_.erase(needs_.find(bytes));
  if (needs_.empty() || (memory_ && memory_->bytes() > *needs_.rbegin())) memory_ = nullptr;  // a run may hold it still
}

std::shared_ptr<HostMemory> SharedArena::hold() {
  const std::lock_guard lock(mutex_);
  if (!memory_) memory_ = std::make_shared<HostMemory>(*needs_.rbegin());
  return memory_;
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
