#include "builder.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "cpu/ops/ops.h"

namespace seresnet::cpu {

namespace {

using Op = void (*)(Builder&);

Op opNamed(const std::string& name) {
  static const std::unordered_map<std::string_view, Op> all{SERESNET_OPS(SERESNET_OP_ENTRY)};
  const auto found = all.find(name);
  if (found == all.end()) throw Error("cpu", "expected ops it has a kernel for, got " + name);
  return found->second;
}

}  // namespace

Builder::Builder(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants,
                 const LoadOptions& options, Onednn& onednn, BuildContext context)
    : StepView(plan_), plan_(plan), options_(options), onednn_(onednn), context_(std::move(context)),
      values_(plan.slots.size()) {
  for (size_t slot = 0; slot < values_.size(); ++slot) values_[slot].root = static_cast<uint32_t>(slot);
  const auto bring = [&](const std::vector<uint32_t>& slots, Buffer::Kind kind) {
    for (size_t i = 0; i < slots.size(); ++i) {
      Buffer buffer;
      buffer.kind = kind;
      buffer.index = i;
      buffer.block.bytes = plan.slots[slots[i]].bytes();
      if (kind == Buffer::Kind::constant) buffer.contents = constants[i];
      if (kind == Buffer::Kind::constant && !options.names.empty()) buffer.name = options.names[i];
      set(slots[i], Layout::plain, add(std::move(buffer)));
    }
  };
  bring(plan.inputs, Buffer::Kind::input);
  bring(plan.constants, Buffer::Kind::constant);
  bring(plan.variables, Buffer::Kind::variable);
  findLastReaders();
}

void Builder::findLastReaders() {
  std::vector<uint32_t> roots(plan_.slots.size());
  for (size_t slot = 0; slot < roots.size(); ++slot) roots[slot] = static_cast<uint32_t>(slot);
  for (const Step& step : plan_.steps)
    if (step.op == "reshape" && !step.inputs.empty() && !step.outputs.empty())
      roots[step.outputs[0]] = roots[step.inputs[0]];
  lastRead_.assign(roots.size(), -1);
  for (size_t time = 0; time < plan_.steps.size(); ++time)
    for (const uint32_t slot : plan_.steps[time].inputs) lastRead_[roots[slot]] = static_cast<int>(time);
  for (const auto* slots : {&plan_.outputs, &plan_.written})
    for (const uint32_t slot : *slots) lastRead_[roots[slot]] = std::numeric_limits<int>::max();
  for (size_t slot = 0; slot < roots.size(); ++slot) values_[slot].root = roots[slot];
}

void Builder::build() {
  for (const Step& step : plan_.steps) {
    step_ = &step;
    if (deferred(step)) {
      defer(step);
      ++time_;
      continue;
    }
    build(step);
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      const Value& value = values_[step.outputs[i]];
      const DType dtype = output(i).dtype;
      const BufferId id = *std::max_element(value.at.begin(), value.at.end());  // an output has one place
      if (id < 0) throw Error(step.op, "left its output " + std::to_string(i) + " empty");
      if (step.op == "reshape" || (dtype != DType::float16 && dtype != DType::bfloat16)) continue;
      touch(id);
      emit("rounded", [id, dtype, count = output(i).size()](const Pointers& p) { roundTo(dtype, p.at(id), count); });
    }
    dropDeadConstants(step);
    ++time_;
  }
  for (const auto* slots : {&plan_.outputs, &plan_.written})
    for (const uint32_t slot : *slots) {
      const BufferId id = readSlot(slot, Layout::plain);
      outputs.push_back(id);
      Buffer& buffer = buffers[static_cast<size_t>(id)];
      if (buffer.kind != Buffer::Kind::arena) continue;
      buffer.kind = Buffer::Kind::result;
      buffer.index = results++;
    }
  finalizeConstants();
  for (Buffer& buffer : buffers)
    if (buffer.kind != Buffer::Kind::arena) buffer.block.last = -1;
}

void Builder::build(const Step& step) {
  const Step* outer = step_;
  step_ = &step;
  opNamed(step.op)(*this);
  step_ = outer;
}

uint32_t Builder::addSlot(const Slot& slot) {
  const auto id = static_cast<uint32_t>(values_.size());
  plan_.slots.push_back(slot);
  values_.emplace_back().root = id;
  lastRead_.push_back(time_);
  return id;
}

BufferId Builder::scratch(size_t bytes) {
  Buffer buffer;
  buffer.block.bytes = std::max<size_t>(bytes, 1);
  return touch(add(std::move(buffer)));
}

void Builder::emit(std::string implementation, Kernel kernel) {
  const int time = static_cast<int>(kernels.size());
  const int step = time_ < static_cast<int>(plan_.steps.size()) ? time_ : -1;
  for (const BufferId id : touched_) {
    Block& block = buffers[static_cast<size_t>(id)].block;
    if (block.first < 0) block.first = time;
    block.last = time;
  }
  kernels.push_back({step_->op, std::move(implementation), step, std::move(touched_), std::move(kernel)});
  touched_.clear();
}

BufferId Builder::add(Buffer buffer) {
  buffer.block.first = -1;
  buffer.block.last = -1;
  buffers.push_back(std::move(buffer));
  return static_cast<BufferId>(buffers.size() - 1);
}

BufferId Builder::touch(BufferId id) {
  touched_.push_back(id);
  return id;
}

}  // namespace seresnet::cpu
