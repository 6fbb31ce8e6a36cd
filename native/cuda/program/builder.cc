#include "builder.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "cuda/ops/ops.h"

namespace seresnet::cuda {

namespace {

using Op = void (*)(Builder&);

Op opNamed(const std::string& name) {
  static const std::unordered_map<std::string_view, Op> all{SERESNET_OPS(SERESNET_OP_ENTRY)};
  const auto found = all.find(name);
  if (found == all.end()) throw Error("cuda", "expected ops it has a kernel for, got " + name);
  return found->second;
}

}  // namespace

Builder::Builder(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants, Context& context,
                 DType compute, bool tf32)
    : StepView(plan), plan_(plan), context_(context), compute_(compute), tf32_(tf32), values_(plan.slots.size()) {
  const auto bring = [&](const std::vector<uint32_t>& slots, Buffer::Kind kind) {
    for (size_t i = 0; i < slots.size(); ++i) {
      Buffer buffer;
      buffer.kind = kind;
      buffer.index = i;
      buffer.block.bytes = plan.slots[slots[i]].bytes();
      set(slots[i], hostForm(plan.slots[slots[i]].dtype), add(std::move(buffer)));
    }
  };
  bring(plan.inputs, Buffer::Kind::input);
  bring(plan.variables, Buffer::Kind::variable);
  for (size_t i = 0; i < plan.constants.size(); ++i) values_[plan.constants[i]].constant = constants[i].get();
}

void Builder::build() {
  for (; time_ < plan_.steps.size(); ++time_) {
    first_ = time_;
    step_ = &plan_.steps[time_];
    opNamed(step_->op)(*this);
    for (size_t done = first_; done <= time_; ++done) {
      const Step& step = plan_.steps[done];
      for (size_t i = 0; i < step.outputs.size(); ++i)
        if (values_[step.outputs[i]].forms.empty() && values_[step.outputs[i]].constant == nullptr)
          throw Error(step.op, "left its output " + std::to_string(i) + " empty");
    }
  }
  const Step leave{"result", {}, {}, {}};
  step_ = &leave;
  for (const auto* slots : {&plan_.outputs, &plan_.written})
    for (const uint32_t slot : *slots) {
      // Results get memory of their own: the arena is the next run's, and nobody else's memory is given away.
      const Form form = hostForm(plan_.slots[slot].dtype);
      BufferId id = readSlot(slot, form);
      const bool ours = buffers[static_cast<size_t>(id)].kind == Buffer::Kind::arena;
      if (!ours) {
        Buffer copy;
        copy.block.bytes = plan_.slots[slot].bytes();
        const BufferId to = touch(add(std::move(copy)));
        touch(id);
        emit("copy", [id, to, bytes = plan_.slots[slot].bytes()](Stream stream, const Pointers& p) {
          gpu::copyOnDevice(stream, p.at(to), p.at(id), bytes);
        });
        id = to;
      }
      touched_.clear();
      outputs.push_back(id);
      buffers[static_cast<size_t>(id)].kind = Buffer::Kind::result;
      buffers[static_cast<size_t>(id)].index = results++;
    }
  for (Buffer& buffer : buffers)
    if (buffer.kind != Buffer::Kind::arena) buffer.block.last = -1;
}

void Builder::expectOneDtype() const {
  for (const auto* slots : {&step_->inputs, &step_->outputs})
    for (const uint32_t slot : *slots)
      expect(held(plan_.slots[slot]) == held(plan_.slots[step_->outputs[0]]), "tensors of one dtype");
}

const float* Builder::constant(size_t input) const {
  const uint32_t slot = step_->inputs[input];
  const HostMemory* host = values_[slot].constant;
  return host != nullptr && isFloat(plan_.slots[slot].dtype) ? host->data<float>() : nullptr;
}

BufferId Builder::keep(const std::vector<float>& values, DType dtype) {
  return uploaded({static_cast<int64_t>(values.size())}, values.data(), Form{}, Form{Layout::plain, dtype, 0});
}

BufferId Builder::scratch(size_t bytes) {
  Buffer buffer;
  buffer.block.bytes = bytes;
  return bytes == 0 ? none : touch(add(std::move(buffer)));
}

void Builder::emit(std::string implementation, Kernel kernel) {
  const int time = static_cast<int>(kernels.size());
  const int step = time_ < plan_.steps.size() ? static_cast<int>(time_) : -1;
  for (const BufferId id : touched_) {
    Block& block = buffers[static_cast<size_t>(id)].block;
    if (block.first < 0) block.first = time;
    block.last = time;
  }
  kernels.push_back({step_->op, std::move(implementation), step, std::move(touched_), std::move(passes_), flops_,
                     std::move(kernel)});
  touched_.clear();
  passes_.clear();
  flops_ = 0;
}

bool Builder::join(size_t shared) {
  if (time_ + 1 >= plan_.steps.size()) return false;
  const Step& next = plan_.steps[time_ + 1];
  const std::vector<uint32_t>& mine = step_->inputs;
  if (next.inputs.size() != mine.size() || format(next) != format(*step_)) return false;
  if (!std::equal(mine.begin() + static_cast<std::ptrdiff_t>(shared), mine.end(),
                  next.inputs.begin() + static_cast<std::ptrdiff_t>(shared)))
    return false;
  for (size_t done = first_; done <= time_; ++done)
    for (const uint32_t written : plan_.steps[done].outputs)
      if (std::find(next.inputs.begin(), next.inputs.end(), written) != next.inputs.end()) return false;
  ++time_;
  step_ = &next;
  return true;
}

int Builder::planInput(size_t input) const {
  const auto found = std::find(plan_.inputs.begin(), plan_.inputs.end(), step_->inputs[input]);
  return found == plan_.inputs.end() ? -1 : static_cast<int>(found - plan_.inputs.begin());
}

void Builder::check(BufferId flag, std::function<Error(int32_t, const Run&)> error) {
  buffers[static_cast<size_t>(flag)].kind = Buffer::Kind::result;
  buffers[static_cast<size_t>(flag)].index = results++;
  checks.push_back({flag, std::move(error)});
}

BufferId Builder::add(Buffer buffer) {
  buffer.block.first = -1;
  buffer.block.last = -1;
  buffers.push_back(std::move(buffer));
  return static_cast<BufferId>(buffers.size() - 1);
}

BufferId Builder::touch(BufferId id) {
  if (id >= 0) touched_.push_back(id);
  return id;
}

void Builder::passes(BufferId id, double times) {
  if (id >= 0) passes_.emplace_back(id, times);
}

}  // namespace seresnet::cuda
