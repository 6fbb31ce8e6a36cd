#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace seresnet {

// What holds a buffer's contents on a device. Shared by everything that reads it, so that a plan or a run under way keeps
// its buffers alive.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {}
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  size_t bytes() const noexcept { return bytes_; }

 private:
  size_t bytes_;
};

// Host memory on cache-line boundaries. Throws Error("memory", …) when it cannot be had, before the system has to kill
// somebody for it. What is large goes back to the system as soon as it is freed.
class HostMemory final : public Memory {
 public:
  explicit HostMemory(size_t bytes);

  // Memory of somebody else's, on no particular boundary and never to be written; `release` is called, on any thread, when
  // nobody here needs it any more.
  HostMemory(const void* data, size_t bytes, std::function<void()> release);
  ~HostMemory() override;

  template <typename T = char>
  T* data() const noexcept {
    return static_cast<T*>(data_);
  }

  // Touches every page, so that the first run does not have to.
  void prefault() const noexcept;

  bool borrowed() const noexcept { return release_ != nullptr; }

 private:
  void* data_;
  size_t mapped_ = 0;  // bytes of the mapping it has to itself; 0 where it is the allocator's
  std::function<void()> release_;
};

// Throws Error("memory", …) unless the process could map so many bytes more. For libraries that take the system's refusal for
// an address: oneDNN's code generator does.
void requireRoom(size_t bytes);

// Gives memory that was given back before, where it is of the size asked for: the system zeroes new pages one by one when they
// are first touched, which for the parameters of a network takes longer than their update. Thread-safe.
class MemoryPool : public std::enable_shared_from_this<MemoryPool> {
 public:
  // Comes back when nobody holds it any more, as long as the pool is there.
  std::shared_ptr<HostMemory> take(size_t bytes);

  // Frees what nobody has taken.
  void trim();

 private:
  std::mutex mutex_;
  std::multimap<size_t, std::unique_ptr<HostMemory>> free_;
};

// Memory for what lives within one run, for programs of which one runs at a time: as large as the largest of them needs, so
// that the plans of training, of its last batch and of validation take it once. Thread-safe.
class SharedArena {
 public:
  // A program's need, as long as it lives. The memory is there when this returns; throws what HostMemory throws.
  class Share {
   public:
    Share(std::shared_ptr<SharedArena> arena, size_t bytes);
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    size_t bytes() const noexcept { return bytes_; }
    // The memory of a run, to be held until its end: at least the bytes asked for, with anybody's contents.
    std::shared_ptr<HostMemory> hold() const { return arena_->hold(); }

   private:
    std::shared_ptr<SharedArena> arena_;
    size_t bytes_;
  };

 private:
  void join(size_t bytes);
  void leave(size_t bytes);
  std::shared_ptr<HostMemory> hold();

  std::mutex mutex_;
  std::multiset<size_t> needs_;
  std::shared_ptr<HostMemory> memory_;
};

// A piece of an arena that is in use from time `first` to time `last`, both included.
struct Block {
  size_t bytes = 0;
  int first = 0;
  int last = 0;
  size_t offset = 0;
};

// Gives every block an offset, so that blocks whose lifetimes meet do not overlap; returns the arena's bytes. Largest
// blocks first, each at the lowest offset that is free during its whole life.
size_t placeBlocks(std::vector<Block>& blocks);

}  // namespace seresnet
