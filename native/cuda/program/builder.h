#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/convolution/convolution.h"
#include "cuda/device/memory_pool.h"
#include "cuda/kernels/arguments.h"
#include "ops/step_view.h"
#include "runtime/backend.h"
#include "runtime/errors.h"

namespace seresnet::cuda {

// How the elements of a tensor [N, C, H, W] lie in memory. Every other tensor is plain.
enum class Layout { plain, channelsLast };

// One way to hold a tensor. `channels` counts the zeros behind the tensor's own; plain tensors have none.
struct Form {
  Layout layout = Layout::plain;
  DType dtype = DType::float32;
  int64_t channels = 0;  // 0: the tensor's own

  bool operator==(const Form&) const = default;
};

// As the host holds it: floats are float32, everything is plain.
inline Form hostForm(DType dtype) { return {Layout::plain, isFloat(dtype) ? DType::float32 : dtype, 0}; }

// Bytes of one element on the device, where every dtype has its own size.
size_t deviceBytes(DType dtype);

// A place in device memory while a program runs; kernels are built before its address is known.
using BufferId = int;
constexpr BufferId none = -1;

struct Buffer {
  enum class Kind { arena, constant, input, variable, result };

  Kind kind = Kind::arena;
  Block block;                             // its lifetime: arena; its bytes: all
  size_t index = 0;                        // input, variable, result
  std::shared_ptr<DeviceMemory> contents;  // constant
};

// Addresses of all buffers in one run.
class Pointers {
 public:
  explicit Pointers(const std::vector<char*>& all) : all_(all) {}

  // Null for `none`, which stands for an operand that is not there.
  template <typename T = void>
  T* at(BufferId id) const {
    return id < 0 ? nullptr : reinterpret_cast<T*>(all_[static_cast<size_t>(id)]);
  }

 private:
  const std::vector<char*>& all_;
};

using Kernel = std::function<void(Stream, const Pointers&)>;

struct NamedKernel {
  std::string op;
  std::string implementation;  // what runs it; empty where that says nothing more
  int step;                    // its step in the plan, or -1
  std::vector<BufferId> touched;
  std::vector<std::pair<BufferId, double>> passes;  // how often it goes over a buffer, where that is not once
  double flops;  // floating-point operations of its products of matrices; 0 for what only moves bytes
  Kernel kernel;

  std::string name() const { return implementation.empty() ? op : op + " " + implementation; }
};

// Something a kernel found out that makes the run fail: an int32 in device memory, and what it means unless it is 0.
struct Check {
  BufferId flag;
  std::function<Error(int32_t, const Run&)> error;
};

// What turns plans into programs, and lives as long as the device is open.
struct Context {
  int device = 0;
  std::shared_ptr<Pool> pool;
  std::shared_ptr<ConvolutionEngine> engine;
  std::shared_ptr<CUstream_st> stream;  // for loading
};

// Turns a plan's steps into kernels, one op at a time. The functions of native/ops/table.h get it with one step
// current.
class Builder : public StepView {
 public:
  // `compute` is the dtype that float32 slots are held in between steps.
  Builder(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants, Context& context, DType compute,
          bool tf32);

  // Makes the kernels of all steps; throws Error when an op has none.
  void build();

  // ---- the current step, for the functions of the ops
  // The dtype a slot's elements have between steps.
  DType held(const Slot& slot) const { return slot.dtype == DType::float32 ? compute_ : slot.dtype; }
  DType inputType(size_t i) const { return held(input(i)); }
  DType outputType(size_t i = 0) const { return held(output(i)); }
  bool tf32() const { return tf32_; }
  ConvolutionEngine& engine() { return *context_.engine; }

  // Expects all inputs and outputs to be held in one dtype.
  void expectOneDtype() const;

  // Whether an input is there in a layout already (and is no plain tensor that one only brings into it).
  bool has(size_t input, Layout layout) const;
  // The layout that an op which takes any should work in: channels-last where an input is in it.
  Layout common() const;
  // The buffer of an input in its held dtype; brought into the layout by a kernel of its own where it is not.
  BufferId read(size_t input, Layout layout = Layout::plain);
  BufferId read(size_t input, Form form);
  // A channel vector in whatever float dtype it is there.
  std::pair<BufferId, DType> readVector(size_t input);
  BufferId write(size_t output, Layout layout = Layout::plain);
  // An output in another dtype than it is held in (statistics stay float32).
  BufferId write(size_t output, Form form);
  // The output is the input's memory under another shape.
  void alias(size_t input, size_t output = 0);
  BufferId scratch(size_t bytes);
  // The contents of an input that is a float constant; null for others.
  const float* constant(size_t input) const;
  // Numbers worked out while loading, in device memory as a dtype.
  BufferId keep(const std::vector<float>& values, DType dtype);
  // Adds a kernel, which uses every buffer named by the calls above since the last one.
  void emit(std::string implementation, Kernel kernel);
  // Makes the next step of the plan the current one, to be done by the same kernel, and says whether it did: where it is the
  // same op with the same attributes, has the inputs from `shared` on in common, and reads nothing this kernel writes.
  bool join(size_t shared);
  // Names a buffer for the next kernel, too.
  BufferId touch(BufferId id);
  // Says how often the next kernel goes over all of a buffer: two passes, or a part of one. Left unsaid it is once, and never
  // for what only it itself uses. This is what its bound is worked out from, so it counts what must come from or go to device
  // memory; what caches give twice counts once.
  void passes(BufferId id, double times);
  // Says how many floating-point operations the next kernel's products of matrices are: two for each multiply-add.
  void computes(double flops) { flops_ += flops; }
  void check(BufferId flag, std::function<Error(int32_t, const Run&)> error);
  // Which of the plan's inputs an input of the step is; -1 for none.
  int planInput(size_t input) const;
  // Steps (in elements) of the dims of a tensor of `shape` in a layout.
  static std::vector<int64_t> strides(const Shape& shape, Layout layout);

  // ---- the result
  std::vector<Buffer> buffers;
  std::vector<NamedKernel> kernels;
  std::vector<BufferId> outputs;  // for each output, then each written slot of the plan, as the host holds them
  std::vector<Check> checks;
  size_t results = 0;  // buffers that leave the program: their memory is not the arena's

 private:
  struct Held {
    Form form;
    BufferId id;
  };
  struct Value {
    std::vector<Held> forms;
    const HostMemory* constant = nullptr;
  };

  BufferId add(Buffer buffer);
  BufferId find(uint32_t slot, const Form& form) const;
  BufferId readSlot(uint32_t slot, const Form& form);
  BufferId convert(uint32_t slot, const Held& from, const Form& to);
  BufferId upload(uint32_t slot, const Form& form);
  BufferId uploaded(const Shape& shape, const void* contents, const Form& given, const Form& form);
  Kernel conversion(const Shape& shape, const Held& from, const Form& to, BufferId target) const;
  bool sameOrder(const Shape& shape) const;
  void set(uint32_t slot, const Form& form, BufferId id);

  const Plan& plan_;
  Context& context_;
  DType compute_;
  bool tf32_;
  size_t time_ = 0;   // index of the current step
  size_t first_ = 0;  // and of the first that its kernel does
  std::vector<Value> values_;
  std::vector<BufferId> touched_;
  std::vector<std::pair<BufferId, double>> passes_;
  double flops_ = 0;
};

// Bytes of a tensor in a form.
size_t bytesOf(const Shape& shape, const Form& form);

}  // namespace seresnet::cuda
