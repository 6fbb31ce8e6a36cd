#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "builder.h"

namespace seresnet::cuda {

// A plan on a GPU: a stream of its own, memory planned once, and the whole of its work in one CUDA graph for each set of
// addresses it is run with. `run` only puts work into streams; what it leaves in Run::finish waits for the results, and needs
// the program to be there.
class CudaProgram final : public Program {
 public:
  CudaProgram(Plan plan, const std::vector<std::shared_ptr<HostMemory>>& constants, Context& context, DType compute,
              bool tf32);
  ~CudaProgram() override;

  void run(Run& run) override;
  std::vector<KernelTime> profile(Run& run) override;                // these two: timing.cc
  Timing time(Run& run, const TimingOptions& options) override;
  size_t bytes() const override;
  std::vector<std::string> kernels() const override;

 private:
  // What one run at a time uses: two of them let the copies of one run go beside the kernels of another.
  struct Lane {
    std::vector<std::shared_ptr<DeviceMemory>> inputs;
    std::vector<std::shared_ptr<DeviceMemory>> results;  // null where the memory leaves with the run
    std::vector<std::unique_ptr<PinnedMemory>> inputStaging;
    std::vector<std::unique_ptr<PinnedMemory>> resultStaging;
    std::shared_ptr<CUevent_st> copiedIn, computed, copiedOut;
    bool busy = false;
  };

  // Work that was recorded for one set of addresses.
  struct Recorded {
    std::vector<char*> addresses;
    std::unique_ptr<gpu::Graph> graph;  // null until the addresses come a second time
    uint64_t lastUse = 0;
    bool refused = false;  // it could not be recorded: put into the stream kernel by kernel
  };

  // New memory for the plan's written slots.
  using Written = std::vector<std::shared_ptr<DeviceMemory>>;

  Lane& takeLane();
  void release(Lane& lane);
  // Puts the copies of a run's inputs into streams, has the program's wait for what it reads, and tells where everything is.
  std::vector<char*> begin(Lane& lane, const Run& run, Written& written);
  void copyIn(Lane& lane, const Run& run);
  std::vector<char*> addressesOf(const Lane& lane, const Run& run, const Written& written) const;
  void enqueue(const std::vector<char*>& addresses);
  bool record(Recorded& known);
  void compute(const std::vector<char*>& addresses);
  void launch(const NamedKernel& kernel, const Pointers& pointers);
  std::string shapesOf(int step) const;
  void await(const std::function<void()>& wait) const;
  std::vector<gpu::Stream> streams() const { return {inStream_.get(), stream_.get(), outStream_.get()}; }
  void copyOut(Lane& lane);
  void collect(Lane& lane, Run& run);
  void placeInArena();
  std::vector<KernelTime> timeKernels(const Run& run, const std::vector<char*>& addresses, const TimingOptions& options);
  KernelTime timeOf(const NamedKernel& kernel, double start, double milliseconds) const;
  double bytesOf(const NamedKernel& kernel) const;

  Plan plan_;
  Context context_;
  std::vector<Buffer> buffers_;
  std::vector<NamedKernel> kernels_;
  std::vector<BufferId> outputs_;
  std::vector<Check> checks_;
  std::vector<int> writtenOf_;  // for each result, which of the written slots it is; -1 for the others
  std::shared_ptr<DeviceMemory> arena_;
  std::vector<char*> addresses_;  // of what does not change from run to run
  std::shared_ptr<CUstream_st> stream_, inStream_, outStream_;
  Lane lanes_[2];
  size_t nextLane_ = 0;
  std::mutex mutex_;
  std::condition_variable released_;
  std::vector<Recorded> recorded_;
  uint64_t uses_ = 0;
  std::string notRecorded_;   // why the last that could not be recorded could not
  const bool synchronous_;    // SERESNET_CUDA_SYNC=1: every kernel is waited for, so that the one that fails is named
};

}  // namespace seresnet::cuda
