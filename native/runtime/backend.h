#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "errors.h"
#include "memory.h"
#include "plan.h"

namespace seresnet {

struct LoadOptions {
  int threads = 0;  // 0: the device's own choice
  std::string compute = "float32";
  // One for each constant, or none at all: constants of one name, in whichever plan, have the same contents.
  std::vector<std::string> names;
  std::string convolution = "auto";  // float32 algorithms on the CPU: auto (the faster), direct, winograd or rule
};

// One run of a program: what it is given, and what it fills in.
struct Run {
  std::vector<std::shared_ptr<HostMemory>> inputs;
  std::vector<std::shared_ptr<Memory>> variables;
  std::vector<std::shared_ptr<HostMemory>> outputs;  // each nobody else's: JavaScript may get it as it is
  std::vector<std::shared_ptr<Memory>> written;
  const std::atomic<bool>* stopping = nullptr;  // becomes true when nobody waits for the run any more
  // Where the device goes on by itself: waits for it and fills in the outputs. Called once, on another thread than `run`,
  // in the order of the runs; the Run stays where it is until then.
  std::function<void()> finish;
};

// What one kernel of a program did in a profiled run.
struct KernelTime {
  int step = -1;               // its step in the plan; -1 for what brings results into the order they leave in
  std::string op;              // the step's op, or what the executor put in before it: a change of layout
  std::string implementation;  // the library's or our own name of what ran
  double start = 0;            // milliseconds since the run began
  double milliseconds = 0;
  double bytes = 0;  // that it has to move: of its operands and results, each once unless the executor knows better
  double flops = 0;  // floating-point operations of products of matrices, where the executor says so
};

// How a program is timed.
struct TimingOptions {
  int rounds = 5;      // of which each gives a time; kernels are given their median
  int calls = 1;       // runs that follow each other in a round
  size_t scratch = 0;  // bytes to copy for memory's speed, and to flush the caches with before each kernel; 0 leaves both out
};

// What a program's runs take when everything is on the device already.
struct Timing {
  std::vector<double> latencies;     // milliseconds of a run by itself until the host knows that it is done, one a round
  std::vector<double> milliseconds;  // of one run of those that follow each other, one a round
  std::vector<KernelTime> kernels;   // one after the other, none with anything in the caches
  double copied = 0;                 // bytes a second that a copy on the device reads and writes together
  std::string notReplayed;           // why runs are not put into the stream with one call; empty where they are
  size_t most = 0;                   // bytes of memory the device's programs and buffers have taken at any time
};

// A plan made ready on a device.
class Program {
 public:
  virtual ~Program() = default;
  virtual void run(Run& run) = 0;
  // Does what `run` does, one kernel after the other, and tells what each took, in the order in which they ran.
  virtual std::vector<KernelTime> profile(Run&) {
    throw Error("profile", "this executor does not time its kernels");
  }
  // Runs it many times, and tells how long that takes.
  virtual Timing time(Run&, const TimingOptions&) { throw Error("time", "this executor does not time its programs"); }
  // Bytes it holds, for JavaScript's garbage collector to know.
  virtual size_t bytes() const = 0;
  // What runs each kernel, for people: the op and its implementation.
  virtual std::vector<std::string> kernels() const = 0;
};

// What a kind of device is to the runtime. Every method is called on its executor thread; all throw Error.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::shared_ptr<Memory> upload(std::shared_ptr<HostMemory> contents) = 0;
  // A copy, which is the caller's.
  virtual std::shared_ptr<HostMemory> download(std::shared_ptr<Memory> contents) = 0;
  // The constants may be memory of JavaScript's: what a program reads in its runs it copies, or brings into an order of its
  // own, and it lets go of the rest.
  virtual std::unique_ptr<Program> load(Plan plan, std::vector<std::shared_ptr<HostMemory>> constants,
                                        const LoadOptions& options) = 0;
};

}  // namespace seresnet
