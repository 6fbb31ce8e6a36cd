#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

#if defined(SIMT_ASAN)
constexpr bool sanitized = true;
inline void forbid(const void* from, size_t bytes) { __asan_poison_memory_region(from, bytes); }
inline void allow(const void* from, size_t bytes) { __asan_unpoison_memory_region(from, bytes); }
#else
constexpr bool sanitized = false;
inline void forbid(const void*, size_t) {}
inline void allow(const void*, size_t) {}
#endif

// A function that runs on a stack of its own and may pause. AddressSanitizer is told of every switch.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(void (*entry)());  // the next resume runs `entry`, which must leave through end()
  void resume();                // returns when the fiber pauses or ends
  void pause();
  [[noreturn]] void end();

 private:
  static void enter();
  void leave(bool forever);

  char* stack_;
  void (*entry_)() = nullptr;
#if defined(__x86_64__)
  void* here_ = nullptr;
  void* caller_ = nullptr;
#else
  ucontext_t here_{};
  ucontext_t caller_{};
#endif
  // AddressSanitizer's: the stacks' shadows, and where the caller's stack lies
  void* shadow_ = nullptr;
  void* callerShadow_ = nullptr;
  const void* callerStack_ = nullptr;
  size_t callerBytes_ = 0;
};

}  // namespace simt
