#pragma once

#include <string>

// What the device "cuda-sim" is told to fail at, as a device may, for the tests of what happens then. SERESNET_SIM_FAULT is a
// list, separated by semicolons, of
//   capture        a stream's work cannot be recorded
//   graph          what was recorded does not fit on the device
//   memory:BYTES   the device has so many bytes and no more
//   pinned:BYTES   so has the host, for pinned memory
//   engine:TEXT    no engine supports a convolution whose text has TEXT in it
//   execute:TEXT   the engine fails when it is asked to run such a convolution
//   launch:NAME    the kernel of that name cannot be launched
//   kernel:NAME    the kernel or convolution makes an illegal access: the device is lost to the process, and every call fails
// TEXT@N, NAME@N: only the Nth time.
namespace seresnet::host {

// Whether something fails now; counts what it is asked.
bool fails(const std::string& what, const std::string& name = "");
// The bytes that `memory` or `pinned` allow.
size_t limitOf(const std::string& what, size_t otherwise);

}  // namespace seresnet::host
