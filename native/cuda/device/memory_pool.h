#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/gpu/gpu.h"
#include "runtime/memory.h"

namespace seresnet::cuda {

// Device memory in use by somebody; goes back to its pool.
class DeviceMemory;

// Device memory that grows as needed and is kept for the next who needs it, up to a limit. Used by several threads.
// Pieces that come back must not be in use by the device any more.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  // `limit` in bytes; 0 means what the device has.
  Pool(int device, size_t limit) : device_(device), limit_(limit) {}
  ~Pool();

  // Throws Error("memory", …) when the limit or the device does not allow it.
  std::shared_ptr<DeviceMemory> get(size_t bytes);

  size_t reserved() const;
  size_t most() const;

 private:
  friend class DeviceMemory;
  void giveBack(void* data, size_t bytes) noexcept;
  void freeIdle() noexcept;

  int device_;
  size_t limit_;
  mutable std::mutex mutex_;
  std::multimap<size_t, void*> idle_;  // by size
  size_t reserved_ = 0;                // bytes taken from the device, idle ones included
  size_t most_ = 0;
};

class DeviceMemory final : public Memory {
 public:
  DeviceMemory(std::shared_ptr<Pool> pool, void* data, size_t bytes, size_t reserved)
      : Memory(bytes), pool_(std::move(pool)), data_(data), reserved_(reserved) {}
  ~DeviceMemory() override { pool_->giveBack(data_, reserved_); }

  char* data() const noexcept { return static_cast<char*>(data_); }

  // Until this has happened the contents are not there; none where they are.
  std::shared_ptr<CUevent_st> ready;

 private:
  std::shared_ptr<Pool> pool_;
  void* data_;
  size_t reserved_;
};

// Pinned host memory.
class PinnedMemory {
 public:
  explicit PinnedMemory(size_t bytes) : data_(gpu::allocatePinned(bytes > 0 ? bytes : 1)) {}
  ~PinnedMemory() { gpu::freePinned(data_); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  char* data() const noexcept { return static_cast<char*>(data_); }

 private:
  void* data_;
};

}  // namespace seresnet::cuda
