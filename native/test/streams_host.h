#pragma once

#include <functional>
#include <string>

#include "cuda/gpu/gpu.h"

// The streams of the device "cuda-sim". Work is done as late as a device might: when somebody waits for it, on the thread
// that waits. So memory that is given back too early, or a wait that is missing, shows in the numbers.
namespace seresnet::host {

using Work = std::function<void()>;

// Puts work of a name into a stream. With the fault kernel:NAME it makes an illegal access when it is done.
void enqueue(cuda::gpu::Stream stream, const std::string& name, Work work);

// The device is lost to the process, for this reason: every call from now on fails.
void lose(const std::string& why);

}  // namespace seresnet::host
