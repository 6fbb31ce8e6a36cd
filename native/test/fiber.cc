#include "fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#if defined(SIMT_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// simtSwitch(&from, to): keeps the registers that a call keeps, on the stack. swapcontext would ask the kernel each time.
extern "C" void simtSwitch(void** from, void* to);
asm(R"(
  .text
  .globl simtSwitch
  .type simtSwitch, @function
simtSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simtSwitch, .-simtSwitch
  .section .note.GNU-stack,"",@progbits
  .text
)");
#endif

namespace simt {

namespace {

constexpr size_t page = 4096;
constexpr size_t stackBytes = (sanitized ? 64 : 16) * page;  // under the sanitizer frames are several times as large

thread_local Fiber* entering = nullptr;

}  // namespace

Fiber::Fiber() {
  // the lowest page may not be touched: a stack that grows too large faults
  void* memory = mmap(nullptr, stackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    std::perror("simt: no memory for a stack");
    std::abort();
  }
  stack_ = static_cast<char*>(memory);
}

Fiber::~Fiber() { munmap(stack_, stackBytes); }

void Fiber::start(void (*entry)()) {
  entry_ = entry;
  shadow_ = nullptr;
  allow(stack_ + stackBytes - page, page);  // what the frames of an earlier start left forbidden
#if defined(__x86_64__)
  auto* top = reinterpret_cast<void**>(stack_ + stackBytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  here_ = top - 8;
#else
  getcontext(&here_);
  here_.uc_stack.ss_sp = stack_;
  here_.uc_stack.ss_size = stackBytes;
  here_.uc_link = nullptr;
  makecontext(&here_, &Fiber::enter, 0);
#endif
}

void Fiber::enter() {
  Fiber* self = entering;
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &self->callerStack_, &self->callerBytes_);
#endif
  self->entry_();
  std::abort();  // the entry leaves through end()
}

void Fiber::resume() {
  entering = this;
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(&callerShadow_, stack_, stackBytes);
#endif
#if defined(__x86_64__)
  simtSwitch(&caller_, here_);
#else
  swapcontext(&caller_, &here_);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(callerShadow_, nullptr, nullptr);
#endif
}

void Fiber::leave([[maybe_unused]] bool forever) {
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(forever ? nullptr : &shadow_, callerStack_, callerBytes_);
#endif
#if defined(__x86_64__)
  simtSwitch(&here_, caller_);
#else
  swapcontext(&here_, &caller_);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(shadow_, &callerStack_, &callerBytes_);
#endif
}

void Fiber::pause() { leave(false); }

void Fiber::end() {
  leave(true);
  std::abort();
}

}  // namespace simt
