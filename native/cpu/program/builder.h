#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ops/step_view.h"
#include "runtime/backend.h"
#include "runtime/errors.h"
#include "weights.h"

namespace seresnet::cpu {

// How the elements of a tensor [N, C, H, W] lie in memory. Every other tensor is plain. From each layout channels-last is
// one kernel away, and so is each from it.
enum class Layout {
  plain,         // N, C, H, W
  channelsLast,  // N, H, W, C
  blocked,       // N, C / 16, H, W, 16, where C is a multiple of 16
  bfloat16,      // N, H, W, C, 16 bits each
};
constexpr size_t layouts = 4;

// Bytes of a slot's contents in a layout.
size_t bytesIn(const Slot& slot, Layout layout);

// A place in memory while a program runs; kernels are built before its address is known.
using BufferId = int;

struct Buffer {
  enum class Kind { arena, constant, input, variable, result };

  Kind kind = Kind::arena;
  Block block;                           // its lifetime: arena; its bytes: all
  size_t index = 0;                      // input, variable, result
  std::shared_ptr<HostMemory> contents;  // constant; empty until it is needed where it has to be computed
  std::string name;                      // constant: equal names mean equal contents; "" means nobody else's
  bool shared = false;                   // constant: found among those of another program
};

// Addresses of all buffers in one run.
class Pointers {
 public:
  explicit Pointers(const std::vector<char*>& all, bool keepsNaN = false) : all_(all), keepsNaN_(keepsNaN) {}

  // Whether kernels must do without what makes numbers of NaN.
  bool keepsNaN() const { return keepsNaN_; }

  template <typename T = float>
  T* at(BufferId id) const {
    return reinterpret_cast<T*>(all_[static_cast<size_t>(id)]);
  }

  // Null for the buffer -1, which stands for an operand that is not there.
  template <typename T = float>
  T* maybe(BufferId id) const {
    return id < 0 ? nullptr : at<T>(id);
  }

 private:
  const std::vector<char*>& all_;
  bool keepsNaN_;
};

using Kernel = std::function<void(const Pointers&)>;

struct NamedKernel {
  std::string op;
  std::string implementation;  // what runs it; empty where that says nothing more
  int step;                    // its step in the plan, or -1
  std::vector<BufferId> touched;
  Kernel kernel;

  std::string name() const { return implementation.empty() ? op : op + " " + implementation; }
};

// oneDNN's engine and stream, known to few.
struct Onednn;

// Runs a plan of its own, once: what steps give whose inputs are all constants.
using Evaluate =
    std::function<std::vector<std::shared_ptr<HostMemory>>(const Plan&, const std::vector<std::shared_ptr<HostMemory>>&)>;

// What a builder needs to treat constants well. Without `evaluate`, steps that read constants alone are run every time.
struct BuildContext {
  Weights* weights = nullptr;
  Evaluate evaluate;
};

// Turns a plan's steps into kernels, one op at a time. The functions of native/ops/table.h get it with one step
// current.
class Builder : public StepView {
 public:
  Builder(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants, const LoadOptions& options,
          Onednn& onednn, BuildContext context = {});

  // Makes the kernels of all steps; throws Error when an op has none.
  void build();

  // ---- the current step, for the functions of the ops
  // Whether an input lies in a layout already; as channels-last also where it does so in blocks or rounded.
  bool has(size_t input, Layout layout) const;
  // Whether it lies in exactly this one.
  bool hasExactly(size_t input, Layout layout) const { return values_[step_->inputs[input]][layout] >= 0; }
  // Whether the current step may keep its images in bfloat16: the plan is to compute so, and its slots are float32.
  bool rounds() const;
  const LoadOptions& options() const { return options_; }
  // The buffer of an input in a layout; brings it there by a kernel of its own where it is not.
  BufferId read(size_t input, Layout layout = Layout::plain);
  // A new buffer for an output.
  BufferId write(size_t output, Layout layout = Layout::plain);
  // The buffer of an input that nobody reads after this step, now that of the output; -1 where it is still needed.
  BufferId overwrite(size_t input, Layout layout, size_t output = 0);
  // The output is the input's memory under another shape.
  void alias(size_t input, size_t output = 0);
  BufferId scratch(size_t bytes);
  // Whether an input is the same in all runs.
  bool isConstant(size_t input) const;
  // The contents of an input that is the same in all runs, computed now if need be, or null.
  const HostMemory* constant(size_t input);
  // What `make` makes of a constant input; made once for all programs in which the constant and `how` are the same.
  BufferId derived(size_t input, const std::string& how,
                   const std::function<std::shared_ptr<HostMemory>(const HostMemory&)>& make);
  // Memory that lives as long as the program.
  BufferId keep(std::shared_ptr<HostMemory> contents);
  // Adds a kernel, which uses every buffer named by the calls above since the last one.
  void emit(std::string implementation, Kernel kernel);
  // A slot that lives within the current step, and the kernels of a step that is part of it.
  uint32_t addSlot(const Slot& slot);
  uint32_t addConstant(const Shape& shape, std::shared_ptr<HostMemory> contents);
  void build(const Step& step);
  // Names a buffer for the next kernel, too.
  BufferId touch(BufferId id);
  Onednn& onednn() { return onednn_; }

  // ---- the result
  std::vector<Buffer> buffers;
  std::vector<NamedKernel> kernels;
  std::vector<BufferId> outputs;  // for each output, then each written slot of the plan
  bool losesNaN = false;          // whether a kernel may make a number of NaN, unless it is told to keep it
  size_t results = 0;             // buffers that leave the program and get their own memory in each run

 private:
  // Where a slot's contents are, in each layout; -1 where they are not.
  struct Value {
    std::array<BufferId, layouts> at{-1, -1, -1, -1};
    uint32_t root = 0;  // the slot whose memory it shares

    BufferId& operator[](Layout layout) { return at[static_cast<size_t>(layout)]; }
    BufferId operator[](Layout layout) const { return at[static_cast<size_t>(layout)]; }
  };

  // A step that reads constants alone: run when somebody needs what it gives.
  struct Deferred {
    const Step* step;
    std::vector<BufferId> inputs;
    std::vector<BufferId> outputs;
  };

  bool isConstantBuffer(BufferId id) const;
  bool deferred(const Step& step) const;
  void defer(const Step& step);
  const std::shared_ptr<HostMemory>& contentsOf(BufferId id);
  void evaluate(const Deferred& deferred);
  void dropDeadConstants(const Step& step);
  void finalizeConstants();

  BufferId add(Buffer buffer);
  BufferId readSlot(uint32_t slot, Layout layout);
  bool sameOrder(uint32_t slot) const;
  void set(uint32_t slot, Layout layout, BufferId id);
  void findLastReaders();

  Plan plan_;
  const LoadOptions& options_;
  Onednn& onednn_;
  BuildContext context_;
  std::map<BufferId, std::shared_ptr<Deferred>> makers_;  // of the constants that are computed
  int time_ = 0;  // index of the current step
  std::vector<Value> values_;
  std::vector<int> lastRead_;  // for each root, the last step that reads its memory
  std::vector<BufferId> touched_;
};

}  // namespace seresnet::cpu
