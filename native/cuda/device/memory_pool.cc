#include "memory_pool.h"

#include <algorithm>
#include <string>

#include "runtime/errors.h"

namespace seresnet::cuda {

namespace {

// Few sizes, so that pieces are found again: powers of two up to 2 MiB, then whole multiples of it.
size_t sizeClass(size_t bytes) {
  constexpr size_t large = size_t{2} << 20;
  if (bytes > large) return (bytes + large - 1) / large * large;
  size_t size = 512;
  while (size < bytes) size *= 2;
  return size;
}

}  // namespace

Pool::~Pool() { freeIdle(); }

std::shared_ptr<DeviceMemory> Pool::get(size_t bytes) {
  const size_t size = sizeClass(bytes);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = idle_.lower_bound(size);
  if (found != idle_.end() && found->first <= size + size / 8) {
    const auto [reserved, data] = *found;
    idle_.erase(found);
    return std::make_shared<DeviceMemory>(shared_from_this(), data, bytes, reserved);
  }
  if (limit_ != 0 && reserved_ + size > limit_) freeIdle();
  if (limit_ != 0 && reserved_ + size > limit_)
    throw Error("memory", std::to_string(bytes) + " bytes do not fit: the limit is " + std::to_string(limit_) +
                              " bytes and " + std::to_string(reserved_) + " are in use", Error::memory);
  void* data = gpu::allocate(size);
  if (data == nullptr) {
    freeIdle();
    data = gpu::allocate(size);
  }
  if (data == nullptr)
    throw Error("memory", std::to_string(bytes) + " bytes do not fit: the device is full, and " +
                              std::to_string(reserved_) + " bytes are this process's own", Error::memory);
  reserved_ += size;
  most_ = std::max(most_, reserved_);
  return std::make_shared<DeviceMemory>(shared_from_this(), data, bytes, size);
}

size_t Pool::reserved() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return reserved_;
}

size_t Pool::most() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return most_;
}

void Pool::giveBack(void* data, size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.emplace(bytes, data);
}

void Pool::freeIdle() noexcept {
  try {
    gpu::use(device_);
  } catch (const Error&) {
    // the device is gone, and its memory with it
  }
  for (const auto& [bytes, data] : idle_) {
    gpu::free(data);
    reserved_ -= bytes;
  }
  idle_.clear();
}

}  // namespace seresnet::cuda
