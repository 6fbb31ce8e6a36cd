#include <algorithm>
#include <chrono>

#include "cuda/kernels/trial.h"
#include "program.h"

// Times are taken by the device itself, between events in the program's stream. Built, never run on a GPU.
namespace seresnet::cuda {

namespace {

// A stretch of a stream, timed by the device.
class Stopwatch {
 public:
  void start(Stream stream) { gpu::record(start_.get(), stream); }
  void stop(Stream stream) { gpu::record(end_.get(), stream); }
  double milliseconds() const { return gpu::milliseconds(start_.get(), end_.get()); }  // once the stream is there
  double since(const Stopwatch& first) const { return gpu::milliseconds(first.start_.get(), start_.get()); }

 private:
  std::shared_ptr<CUevent_st> start_ = gpu::makeEvent(true), end_ = gpu::makeEvent(true);
};

// Device memory that no pool knows of, so that it does not count as the program's.
std::unique_ptr<void, void (*)(void*)> scratch(size_t bytes) {
  void* memory = gpu::allocate(bytes);
  if (memory == nullptr)
    throw Error("memory", std::to_string(bytes) + " bytes of scratch memory do not fit on the device", Error::memory);
  return {memory, [](void* held) { gpu::free(held); }};
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void expectGoing(const Run& run) {
  if (*run.stopping) throw Error("run", "the environment is closing");
}

// Bytes a second that a copy on the device reads and writes together.
double copySpeed(Stream stream, size_t bytes, int rounds) {
  const auto from = scratch(bytes), to = scratch(bytes);
  // zeros may be quicker than what is copied otherwise
  launchNoise(stream, {from.get(), DType::float32, static_cast<int64_t>(bytes / sizeof(float)), 1});
  gpu::copyOnDevice(stream, to.get(), from.get(), bytes);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    Stopwatch watch;
    watch.start(stream);
    gpu::copyOnDevice(stream, to.get(), from.get(), bytes);
    watch.stop(stream);
    gpu::synchronize(stream);
    times.push_back(watch.milliseconds());
  }
  return 2e3 * static_cast<double>(bytes) / median(times);
}

}  // namespace

std::vector<KernelTime> CudaProgram::profile(Run& run) {
  gpu::use(context_.device);
  Lane& lane = takeLane();
  try {
    Written written;
    const gpu::Drain drain(streams());
    const std::vector<char*> addresses = begin(lane, run, written);
    const Pointers pointers(addresses);
    const Stream stream = stream_.get();
    std::vector<Stopwatch> watches(kernels_.size());
    for (size_t i = 0; i < kernels_.size(); ++i) {
      expectGoing(run);
      watches[i].start(stream);
      launch(kernels_[i], pointers);
      watches[i].stop(stream);
    }
    await([&] { gpu::synchronize(stream); });
    std::vector<KernelTime> times;
    for (size_t i = 0; i < kernels_.size(); ++i)
      times.push_back(timeOf(kernels_[i], watches[i].since(watches[0]), watches[i].milliseconds()));
    release(lane);
    return times;
  } catch (...) {
    release(lane);
    throw;
  }
}

Timing CudaProgram::time(Run& run, const TimingOptions& options) {
  gpu::use(context_.device);
  Lane& lane = takeLane();
  try {
    Written written;
    const gpu::Drain drain(streams());
    const std::vector<char*> addresses = begin(lane, run, written);
    const Stream stream = stream_.get();
    Timing timing;
    for (int warm = 0; warm < 3; ++warm) enqueue(addresses);  // the second time records it
    await([&] { gpu::synchronize(stream); });
    for (int round = 0; round < options.rounds; ++round) {
      expectGoing(run);
      const auto start = std::chrono::steady_clock::now();
      enqueue(addresses);
      await([&] { gpu::synchronize(stream); });
      const std::chrono::duration<double, std::milli> alone = std::chrono::steady_clock::now() - start;
      timing.latencies.push_back(alone.count());
      Stopwatch watch;
      watch.start(stream);
      for (int call = 0; call < options.calls; ++call) enqueue(addresses);
      watch.stop(stream);
      await([&] { gpu::synchronize(stream); });
      timing.milliseconds.push_back(watch.milliseconds() / options.calls);
    }
    timing.most = context_.pool->most();
    timing.notReplayed = synchronous_ ? "SERESNET_CUDA_SYNC is set" : notRecorded_;
    if (options.scratch > 0) {
      timing.copied = copySpeed(stream, options.scratch, options.rounds);
      timing.kernels = timeKernels(run, addresses, options);
    }
    release(lane);
    return timing;
  } catch (...) {
    release(lane);
    throw;
  }
}

// Each kernel finds nothing of its operands in the caches: memory of their size or more is written before it.
std::vector<KernelTime> CudaProgram::timeKernels(const Run& run, const std::vector<char*>& addresses,
                                                 const TimingOptions& options) {
  const Pointers pointers(addresses);
  const Stream stream = stream_.get();
  const auto flushed = scratch(options.scratch);
  std::vector<Stopwatch> watches(kernels_.size());
  std::vector<std::vector<double>> times(kernels_.size());
  for (int round = 0; round < options.rounds; ++round) {
    expectGoing(run);
    for (size_t i = 0; i < kernels_.size(); ++i) {
      gpu::clear(stream, flushed.get(), options.scratch);
      watches[i].start(stream);
      launch(kernels_[i], pointers);
      watches[i].stop(stream);
    }
    await([&] { gpu::synchronize(stream); });
    for (size_t i = 0; i < kernels_.size(); ++i) times[i].push_back(watches[i].milliseconds());
  }
  std::vector<KernelTime> medians;
  double start = 0;
  for (size_t i = 0; i < kernels_.size(); ++i) {
    medians.push_back(timeOf(kernels_[i], start, median(times[i])));
    start += medians.back().milliseconds;
  }
  return medians;
}

KernelTime CudaProgram::timeOf(const NamedKernel& kernel, double start, double milliseconds) const {
  return {kernel.step, kernel.op, kernel.implementation, start, milliseconds, bytesOf(kernel), kernel.flops};
}

// Operands and results, each once unless the kernel says something else. What lives during this kernel alone is scratch
// memory.
double CudaProgram::bytesOf(const NamedKernel& kernel) const {
  std::vector<BufferId> touched = kernel.touched;
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  double total = 0;
  for (const BufferId id : touched) {
    const Buffer& buffer = buffers_[static_cast<size_t>(id)];
    const bool scratch = buffer.kind == Buffer::Kind::arena && buffer.block.first == buffer.block.last;
    double times = scratch ? 0 : 1;
    for (const auto& [which, said] : kernel.passes)
      if (which == id) times = said;
    total += times * static_cast<double>(buffer.block.bytes);
  }
  return total;
}

}  // namespace seresnet::cuda
