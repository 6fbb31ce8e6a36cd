#include "backend.h"

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <cstring>
#include <latch>
#include <system_error>
#include <thread>

#include "cpu/loops/parallel.h"
#include "cpu/program/builder.h"
#include "dnnl_adapter.h"
#include "ops/table.h"
#include "runtime/threads.h"

namespace seresnet::cpu {

namespace {

// Whether oneDNN computes on the team's threads (or the calling one), so that their flags tell of all that it did.
bool computesOnTeam() {
  const unsigned runtime = dnnl_version()->cpu_runtime;
  return runtime == DNNL_RUNTIME_OMP || runtime == DNNL_RUNTIME_SEQ;
}

void clearInvalid() {
#pragma omp parallel
  std::feclearexcept(FE_INVALID);
}

// Whether a thread of the team has met an invalid operation since: one that made a NaN, or a maximum that lost one. Clears
// what it finds.
bool metInvalid() {
  int met = 0;
#pragma omp parallel reduction(| : met)
  {
    met |= std::fetestexcept(FE_INVALID);
    if (met != 0) std::feclearexcept(FE_INVALID);
  }
  return met != 0;
}

// What the programs of a device have in common.
struct Common {
  std::shared_ptr<Onednn> onednn;
  std::shared_ptr<SharedArena> arena = std::make_shared<SharedArena>();
  std::shared_ptr<MemoryPool> pool = std::make_shared<MemoryPool>();
  std::shared_ptr<bool> watched = std::make_shared<bool>(false);  // whether the team's flags were looked at after all it did
};

class CpuProgram final : public Program {
 public:
  // The options name the number of threads.
  CpuProgram(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants, const LoadOptions& options,
             const Common& common, BuildContext context = {})
      : common_(common), threads_(options.threads), split_(plan.outputs.size()) {
    omp_set_num_threads(threads_);  // oneDNN shares work out when a primitive is made
    *common_.watched = false;
    Builder builder(plan, constants, options, *common_.onednn, std::move(context));
    builder.build();
    buffers_ = std::move(builder.buffers);
    kernels_ = std::move(builder.kernels);
    outputs_ = std::move(builder.outputs);
    results_ = builder.results;
    losesNaN_ = builder.losesNaN;
    for (const auto* slots : {&plan.outputs, &plan.written})
      for (const uint32_t slot : *slots) outputBytes_.push_back(plan.slots[slot].bytes());
    placeInArena();
  }

  void run(Run& run) override {
    execute(run, [](const NamedKernel& kernel, const Pointers& pointers) { call(kernel, pointers); });
  }

  std::vector<KernelTime> profile(Run& run) override {
    using Clock = std::chrono::steady_clock;
    using Milliseconds = std::chrono::duration<double, std::milli>;
    std::vector<KernelTime> times;
    Clock::time_point begin;
    execute(run, [&](const NamedKernel& kernel, const Pointers& pointers) {
      const Clock::time_point start = Clock::now();
      if (&kernel == &kernels_.front()) {  // of a run that is repeated, the last one
        begin = start;
        times.clear();
      }
      call(kernel, pointers);
      const Clock::time_point end = Clock::now();
      times.push_back({kernel.step, kernel.op, kernel.implementation, Milliseconds(start - begin).count(),
                       Milliseconds(end - start).count(), bytesOf(kernel)});
    });
    return times;
  }

  size_t bytes() const override {
    size_t total = arena_->bytes();
    for (const Buffer& buffer : buffers_)
      if (buffer.contents && !buffer.shared) total += buffer.contents->bytes();
    return total;
  }

  std::vector<std::string> kernels() const override {
    std::vector<std::string> names;
    for (const NamedKernel& kernel : kernels_) names.push_back(kernel.name());
    return names;
  }

 private:
  static HostMemory& host(const std::shared_ptr<Memory>& memory) { return static_cast<HostMemory&>(*memory); }

  // Prepares the addresses of a run, has `each` called for every kernel, and collects the results.
  template <typename Each>
  void execute(Run& run, const Each& each) {
    omp_set_num_threads(threads_);
    std::vector<std::shared_ptr<HostMemory>> results(results_);
    std::vector<char*> addresses = addresses_;
    const std::shared_ptr<HostMemory> arena = arena_->hold();
    for (const auto& [id, offset] : placed_) addresses[id] = arena->data() + offset;
    for (size_t id = 0; id < buffers_.size(); ++id) {
      const Buffer& buffer = buffers_[id];
      if (buffer.kind == Buffer::Kind::input) addresses[id] = run.inputs[buffer.index]->data();
      if (buffer.kind == Buffer::Kind::variable) addresses[id] = host(run.variables[buffer.index]).data();
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const Buffer& buffer = buffers_[static_cast<size_t>(outputs_[i])];
      if (buffer.kind != Buffer::Kind::result || results[buffer.index]) continue;
      results[buffer.index] = allocate(i);
      addresses[static_cast<size_t>(outputs_[i])] = results[buffer.index]->data();
    }
    const auto runAll = [&](bool keepsNaN) {
      const Pointers pointers(addresses, keepsNaN);
      for (const NamedKernel& kernel : kernels_) {
        if (*run.stopping) throw Error("run", "the environment is closing");
        each(kernel, pointers);
      }
    };
    const bool watches = losesNaN_ && computesOnTeam();
    if (watches && !*common_.watched) clearInvalid();
    *common_.watched = false;
    runAll(losesNaN_ && !watches);
    if (watches) {
      if (metInvalid()) runAll(true);  // kernels only read what a run is given, so it can be repeated
      else *common_.watched = true;
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      std::shared_ptr<HostMemory> memory = leave(i, results, addresses);
      if (i < split_) run.outputs.push_back(std::move(memory));
      else run.written.push_back(std::move(memory));
    }
    common_.pool->trim();
  }

  // Operands and results, each once. What lives during this kernel alone is scratch memory.
  double bytesOf(const NamedKernel& kernel) const {
    std::vector<BufferId> touched = kernel.touched;
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    double total = 0;
    for (const BufferId id : touched) {
      const Buffer& buffer = buffers_[static_cast<size_t>(id)];
      const bool scratch = buffer.kind == Buffer::Kind::arena && buffer.block.first == buffer.block.last;
      if (!scratch) total += static_cast<double>(buffer.block.bytes);
    }
    return total;
  }

  static void call(const NamedKernel& kernel, const Pointers& pointers) {
    try {
      kernel.kernel(pointers);
    } catch (const dnnl::error& error) {
      throw Error(kernel.name(), std::string("oneDNN: ") + error.what());
    }
  }

  // Memory for a result. What is written takes that of what earlier runs wrote and somebody has replaced since.
  std::shared_ptr<HostMemory> allocate(size_t result) const {
    return result < split_ ? std::make_shared<HostMemory>(outputBytes_[result]) : common_.pool->take(outputBytes_[result]);
  }

  // A result as it is, the first time it is asked for; then, and of what somebody else owns, a copy.
  std::shared_ptr<HostMemory> leave(size_t result, std::vector<std::shared_ptr<HostMemory>>& results,
                                    const std::vector<char*>& addresses) const {
    const auto id = static_cast<size_t>(outputs_[result]);
    const Buffer& buffer = buffers_[id];
    if (buffer.kind == Buffer::Kind::result && results[buffer.index]) return std::move(results[buffer.index]);
    auto copy = allocate(result);
    std::memcpy(copy->data(), addresses[id], outputBytes_[result]);
    return copy;
  }

  void placeInArena() {
    std::vector<Block> blocks;
    std::vector<size_t> owners;
    for (size_t id = 0; id < buffers_.size(); ++id) {
      Buffer& buffer = buffers_[id];
      if (buffer.kind != Buffer::Kind::arena || buffer.block.first < 0) continue;
      blocks.push_back(buffer.block);
      owners.push_back(id);
    }
    arena_ = std::make_unique<SharedArena::Share>(common_.arena, placeBlocks(blocks));
    for (size_t i = 0; i < blocks.size(); ++i) placed_.emplace_back(owners[i], blocks[i].offset);
    addresses_.assign(buffers_.size(), nullptr);
    for (size_t id = 0; id < buffers_.size(); ++id)
      if (buffers_[id].contents) addresses_[id] = buffers_[id].contents->data();
  }

  Common common_;  // before the kernels that use it
  int threads_;
  size_t split_;  // where the written slots start in outputs_
  std::vector<Buffer> buffers_;
  std::vector<NamedKernel> kernels_;
  std::vector<BufferId> outputs_;
  std::vector<size_t> outputBytes_;
  size_t results_ = 0;
  bool losesNaN_ = false;  // see relu_convolution.h
  std::unique_ptr<SharedArena::Share> arena_;
  std::vector<std::pair<size_t, size_t>> placed_;  // buffers in the arena and where
  std::vector<char*> addresses_;  // of constants
};

// libgomp ends the process when it cannot start a thread, so whether there may be so many is found out before it tries.
void tryThreads(int count) {
  std::latch end(1);
  std::vector<std::thread> team;
  team.reserve(static_cast<size_t>(count));
  std::string failure;
  try {
    while (static_cast<int>(team.size()) < count - 1) team.emplace_back([&end] { end.wait(); });
  } catch (const std::system_error& error) {
    failure = error.what();
  }
  end.count_down();
  for (std::thread& thread : team) thread.join();
  if (!failure.empty())
    throw Error("cpu", "expected to start " + std::to_string(count) + " threads, got " +
                           std::to_string(team.size() + 1) + ": " + failure);
}

class CpuBackend final : public Backend {
 public:
  std::shared_ptr<Memory> upload(std::shared_ptr<HostMemory> contents) override { return contents; }

  std::shared_ptr<HostMemory> download(std::shared_ptr<Memory> contents) override {
    auto copy = std::make_shared<HostMemory>(contents->bytes());
    std::memcpy(copy->data(), static_cast<HostMemory&>(*contents).data(), copy->bytes());
    return copy;
  }

  std::unique_ptr<Program> load(Plan plan, std::vector<std::shared_ptr<HostMemory>> constants,
                                const LoadOptions& options) override {
    if (options.compute != "float32" && options.compute != "bfloat16")
      throw Error("cpu", "expected compute float32 or bfloat16, got " + options.compute, Error::dtype);
    if (options.convolution != "auto" && options.convolution != "direct" && options.convolution != "winograd" &&
        options.convolution != "rule")
      throw Error("cpu", "expected convolution auto, direct, winograd or rule, got " + options.convolution, Error::argument);
    const int available = availableThreads();
    const int threads = options.threads > 0 ? options.threads : available;
    if (threads > std::max(4 * available, 64))
      throw Error("cpu", "expected at most " + std::to_string(std::max(4 * available, 64)) + " threads, got " +
                             std::to_string(threads), Error::argument);
    if (threads > startable_) tryThreads(threads);
    startable_ = std::max(startable_, threads);
    try {
      if (!common_.onednn) common_.onednn = std::make_shared<Onednn>();
      LoadOptions chosen = options;
      chosen.threads = threads;
      LoadOptions exact;  // what is made of weights at load is made in float32
      exact.threads = threads;
      const Evaluate evaluate = [&](const Plan& steps, const std::vector<std::shared_ptr<HostMemory>>& inputs) {
        Run run;
        run.inputs = inputs;
        run.stopping = &never_;
        CpuProgram(steps, {}, exact, common_).run(run);
        return run.outputs;
      };
      return std::make_unique<CpuProgram>(plan, constants, chosen, common_, BuildContext{&weights_, evaluate});
    } catch (const dnnl::error& error) {
      throw Error("cpu", std::string("oneDNN: ") + error.what(),
                  error.status == dnnl_out_of_memory ? Error::memory : Error::device);
    }
  }

 private:
  int startable_ = 1;
  Common common_;
  Weights weights_;
  const std::atomic<bool> never_{false};
};

}  // namespace

std::unique_ptr<Backend> makeBackend() { return std::make_unique<CpuBackend>(); }

std::vector<std::string> opNames() { return {SERESNET_OPS(SERESNET_OP_NAME)}; }

}  // namespace seresnet::cpu
