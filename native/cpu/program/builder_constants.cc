#include <algorithm>
#include <cstring>

#include "builder.h"

// What a builder does with constants: steps that read nothing else are run at load, when somebody needs what they give; what
// programs have in common they share; and what no kernel reads is let go.
namespace seresnet::cpu {

uint32_t Builder::addConstant(const Shape& shape, std::shared_ptr<HostMemory> contents) {
  const uint32_t slot = addSlot({shape, DType::float32});
  Buffer buffer;
  buffer.kind = Buffer::Kind::constant;
  buffer.block.bytes = contents->bytes();
  buffer.contents = std::move(contents);
  set(slot, Layout::plain, add(std::move(buffer)));
  return slot;
}

bool Builder::deferred(const Step& step) const {
  if (!context_.evaluate || step.inputs.empty()) return false;
  return std::all_of(step.inputs.begin(), step.inputs.end(), [&](uint32_t slot) {
    const BufferId id = values_[slot][Layout::plain];
    return id >= 0 && isConstantBuffer(id);
  });
}

void Builder::defer(const Step& step) {
  if (step.op == "reshape") return set(step.outputs[0], Layout::plain, values_[step.inputs[0]][Layout::plain]);
  auto deferred = std::make_shared<Deferred>(Deferred{&step, {}, {}});
  std::string name = format(step);
  for (const uint32_t slot : step.inputs) {
    const BufferId id = values_[slot][Layout::plain];
    const std::string& own = buffers[static_cast<size_t>(id)].name;
    deferred->inputs.push_back(id);
    if (own.empty()) name.clear();
    if (!name.empty()) name += "(" + own + ")" + format(plan_.slots[slot].shape);
  }
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    const Slot& slot = plan_.slots[step.outputs[i]];
    Buffer buffer;
    buffer.kind = Buffer::Kind::constant;
    buffer.block.bytes = slot.bytes();
    if (!name.empty()) buffer.name = name + format(slot.shape) + "." + std::to_string(i);
    const BufferId id = add(std::move(buffer));
    deferred->outputs.push_back(id);
    makers_.emplace(id, deferred);
    set(step.outputs[i], Layout::plain, id);
  }
}

const std::shared_ptr<HostMemory>& Builder::contentsOf(BufferId id) {
  Buffer& buffer = buffers[static_cast<size_t>(id)];
  if (buffer.contents) return buffer.contents;
  if (!buffer.name.empty() && context_.weights != nullptr) {
    buffer.contents = context_.weights->find(buffer.name);
    buffer.shared = buffer.contents != nullptr;
  }
  if (!buffer.contents) evaluate(*makers_.at(id));
  return buffer.contents;
}

void Builder::evaluate(const Deferred& deferred) {
  Plan plan;
  Step step = *deferred.step;
  std::vector<std::shared_ptr<HostMemory>> inputs;
  for (auto* slots : {&step.inputs, &step.outputs}) {
    for (uint32_t& slot : *slots) {
      (slots == &step.inputs ? plan.inputs : plan.outputs).push_back(static_cast<uint32_t>(plan.slots.size()));
      plan.slots.push_back(plan_.slots[slot]);
      slot = static_cast<uint32_t>(plan.slots.size() - 1);
    }
  }
  plan.steps.push_back(std::move(step));
  for (const BufferId id : deferred.inputs) inputs.push_back(contentsOf(id));
  const auto results = context_.evaluate(plan, inputs);
  for (size_t i = 0; i < results.size(); ++i) {
    Buffer& buffer = buffers[static_cast<size_t>(deferred.outputs[i])];
    if (!buffer.contents) buffer.contents = results[i];
  }
}

// After a step: the contents of constants that no kernel reads and no later step needs.
void Builder::dropDeadConstants(const Step& step) {
  for (const uint32_t slot : step.inputs) {
    const Value& value = values_[slot];
    if (value[Layout::plain] < 0 || lastRead_[value.root] > time_) continue;
    Buffer& buffer = buffers[static_cast<size_t>(value[Layout::plain])];
    if (buffer.kind == Buffer::Kind::constant && buffer.block.first < 0) buffer.contents.reset();
  }
}

// Constants that kernels or results need are held by the program itself, and shared with those that come later.
void Builder::finalizeConstants() {
  for (size_t id = 0; id < buffers.size(); ++id) {
    Buffer& buffer = buffers[id];
    if (buffer.kind != Buffer::Kind::constant) continue;
    const bool read = buffer.block.first >= 0 ||
                      std::find(outputs.begin(), outputs.end(), static_cast<BufferId>(id)) != outputs.end();
    if (!read) {
      buffer.contents.reset();  // weights that live on in another order, or in what was computed from them
      continue;
    }
    const bool named = !buffer.name.empty() && context_.weights != nullptr;
    auto contents = contentsOf(static_cast<BufferId>(id));
    if (named && !buffer.shared) {
      if (auto known = context_.weights->find(buffer.name)) {
        buffer.contents = std::move(known);
        buffer.shared = true;
        continue;
      }
    }
    if (contents->borrowed()) {
      buffer.contents = std::make_shared<HostMemory>(contents->bytes());
      if (contents->bytes() > 0) std::memcpy(buffer.contents->data(), contents->data(), contents->bytes());
    }
    if (named) context_.weights->add(buffer.name, buffer.contents);
  }
}

bool Builder::isConstant(size_t input) const {
  const BufferId id = values_[step_->inputs[input]][Layout::plain];
  return id >= 0 && isConstantBuffer(id);
}

bool Builder::isConstantBuffer(BufferId id) const {
  return buffers[static_cast<size_t>(id)].kind == Buffer::Kind::constant;
}

const HostMemory* Builder::constant(size_t input) {
  return isConstant(input) ? contentsOf(values_[step_->inputs[input]][Layout::plain]).get() : nullptr;
}

BufferId Builder::derived(size_t input, const std::string& how,
                          const std::function<std::shared_ptr<HostMemory>(const HostMemory&)>& make) {
  const BufferId source = values_[step_->inputs[input]][Layout::plain];
  std::string name = buffers[static_cast<size_t>(source)].name;
  if (name.empty() || context_.weights == nullptr) return keep(make(*contentsOf(source)));
  name += " " + how;
  const auto known = context_.weights->find(name);
  const BufferId id = keep(known ? known : make(*contentsOf(source)));
  Buffer& buffer = buffers[static_cast<size_t>(id)];
  buffer.shared = known != nullptr;
  buffer.name = std::move(name);
  return id;
}

BufferId Builder::keep(std::shared_ptr<HostMemory> contents) {
  Buffer buffer;
  buffer.kind = Buffer::Kind::constant;
  buffer.block.bytes = contents->bytes();
  buffer.contents = std::move(contents);
  return touch(add(std::move(buffer)));
}

}  // namespace seresnet::cpu
