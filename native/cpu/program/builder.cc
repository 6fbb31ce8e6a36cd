#include "builder.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "cpu/ops/ops.h"
#include "layout.h"

namespace seresnet::cpu {

namespace {

// What a step that only brings an image into a layout is called.
const char* reorderTo(Layout layout) {
  constexpr std::array<const char*, layouts> names{"to nchw", "to nhwc", "to nChw16c", "to bfloat16"};
  return names[static_cast<size_t>(layout)];
}

using Op = void (*)(Builder&);

Op opNamed(const std::string& name) {
  static const std::unordered_map<std::string_view, Op> all{SERESNET_OPS(SERESNET_OP_ENTRY)};
  const auto found = all.find(name);
  if (found == all.end()) throw Error("cpu", "expected ops it has a kernel for, got " + name);
  return found->second;
}

}  // namespace

size_t bytesIn(const Slot& slot, Layout layout) {
  return layout == Layout::bfloat16 ? static_cast<size_t>(slot.size()) * sizeof(uint16_t) : slot.bytes();
}

Builder::Builder(const Plan& plan, const std::vector<std::shared_ptr<HostMemory>>& constants,
                 const LoadOptions& options, Onednn& onednn, Setting setting)
    : StepView(plan_), plan_(plan), options_(options), onednn_(onednn), setting_(std::move(setting)), values_(plan.slots.size()) {
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
    letGo(step);
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
  own();
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
  if (!setting_.evaluate || step.inputs.empty()) return false;
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
  if (!buffer.name.empty() && setting_.weights != nullptr) {
    buffer.contents = setting_.weights->find(buffer.name);
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
  const auto results = setting_.evaluate(plan, inputs);
  for (size_t i = 0; i < results.size(); ++i) {
    Buffer& buffer = buffers[static_cast<size_t>(deferred.outputs[i])];
    if (!buffer.contents) buffer.contents = results[i];
  }
}

// After a step: the contents of constants that no kernel reads and no later step needs.
void Builder::letGo(const Step& step) {
  for (const uint32_t slot : step.inputs) {
    const Value& value = values_[slot];
    if (value[Layout::plain] < 0 || lastRead_[value.root] > time_) continue;
    Buffer& buffer = buffers[static_cast<size_t>(value[Layout::plain])];
    if (buffer.kind == Buffer::Kind::constant && buffer.block.first < 0) buffer.contents.reset();
  }
}

// Constants that kernels or results need are held by the program itself, and shared with those that come later.
void Builder::own() {
  for (size_t id = 0; id < buffers.size(); ++id) {
    Buffer& buffer = buffers[id];
    if (buffer.kind != Buffer::Kind::constant) continue;
    const bool read = buffer.block.first >= 0 ||
                      std::find(outputs.begin(), outputs.end(), static_cast<BufferId>(id)) != outputs.end();
    if (!read) {
      buffer.contents.reset();  // weights that live on in another order, or in what was computed from them
      continue;
    }
    const bool named = !buffer.name.empty() && setting_.weights != nullptr;
    auto contents = contentsOf(static_cast<BufferId>(id));
    if (named && !buffer.shared) {
      if (auto known = setting_.weights->find(buffer.name)) {
        buffer.contents = std::move(known);
        buffer.shared = true;
        continue;
      }
    }
    if (contents->borrowed()) {
      buffer.contents = std::make_shared<HostMemory>(contents->bytes());
      if (contents->bytes() > 0) std::memcpy(buffer.contents->data(), contents->data(), contents->bytes());
    }
    if (named) setting_.weights->add(buffer.name, buffer.contents);
  }
}

bool Builder::has(size_t input, Layout layout) const {
  if (layout == Layout::channelsLast && (hasExactly(input, Layout::blocked) || hasExactly(input, Layout::bfloat16)))
    return true;
  return hasExactly(input, layout);
}

bool Builder::rounds() const {
  if (options_.compute != "bfloat16") return false;
  for (const auto* slots : {&step_->inputs, &step_->outputs})
    for (const uint32_t slot : *slots)
      if (plan_.slots[slot].dtype != DType::float32) return false;
  return true;
}

BufferId Builder::read(size_t input, Layout layout) { return readSlot(step_->inputs[input], layout); }

BufferId Builder::readSlot(uint32_t slot, Layout layout) {
  const Value& value = values_[slot];
  if (value[layout] >= 0) {
    if (isConstantBuffer(value[layout])) contentsOf(value[layout]);
    return touch(value[layout]);
  }
  const Slot& tensor = plan_.slots[slot];
  if (tensor.shape.size() != 4) throw Error(step_ ? step_->op : "plan", "no such layout");
  const std::vector<BufferId> waiting = std::move(touched_);  // they belong to the kernel that is being built
  touched_.clear();
  Layout from = Layout::channelsLast;
  if (layout != from) {
    readSlot(slot, from);
    touched_.clear();
    if (value[layout] >= 0) {  // both layouts are one
      touched_ = waiting;
      return touch(value[layout]);
    }
  } else if (value[Layout::plain] >= 0) {
    from = Layout::plain;
  } else {
    from = value[Layout::blocked] >= 0 ? Layout::blocked : Layout::bfloat16;
  }
  const BufferId source = value[from];
  if (source < 0) throw Error(step_ ? step_->op : "plan", "no such layout");
  if (isConstantBuffer(source)) contentsOf(source);
  Buffer buffer;
  buffer.block.bytes = bytesIn(tensor, layout);
  const BufferId to = add(std::move(buffer));
  set(slot, layout, to);
  touch(source);
  touch(to);
  const Step* current = step_;
  const Step reorder{reorderTo(layout), {}, {}, {}};
  step_ = &reorder;
  emit("", convertImages(tensor.shape, from, layout, source, to));
  step_ = current;
  touched_ = waiting;
  return touch(to);
}

BufferId Builder::write(size_t output, Layout layout) {
  const uint32_t slot = step_->outputs[output];
  Buffer buffer;
  buffer.block.bytes = bytesIn(plan_.slots[slot], layout);
  const BufferId id = add(std::move(buffer));
  set(slot, layout, id);
  return touch(id);
}

BufferId Builder::overwrite(size_t input, Layout layout, size_t output) {
  const uint32_t slot = step_->inputs[input];
  const Value& value = values_[slot];
  if (value[layout] < 0 || lastRead_[value.root] != time_) return -1;
  if (std::count(step_->inputs.begin(), step_->inputs.end(), slot) != 1) return -1;
  const BufferId id = value[layout];
  if (buffers[static_cast<size_t>(id)].kind != Buffer::Kind::arena) return -1;
  for (const uint32_t other : step_->inputs)
    if (other != slot && values_[other].root == value.root) return -1;
  if (plan_.slots[slot].bytes() != this->output(output).bytes()) return -1;
  set(step_->outputs[output], layout, id);
  return touch(id);
}

void Builder::alias(size_t input, size_t output) { set(step_->outputs[output], Layout::plain, read(input)); }

BufferId Builder::scratch(size_t bytes) {
  Buffer buffer;
  buffer.block.bytes = std::max<size_t>(bytes, 1);
  return touch(add(std::move(buffer)));
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
  if (name.empty() || setting_.weights == nullptr) return keep(make(*contentsOf(source)));
  name += " " + how;
  const auto known = setting_.weights->find(name);
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

// One channel, or one pixel: both layouts are one.
bool Builder::sameOrder(uint32_t slot) const {
  const Shape& shape = plan_.slots[slot].shape;
  return shape.size() == 4 && isFloat(plan_.slots[slot].dtype) && (shape[1] == 1 || shape[2] * shape[3] == 1);
}

void Builder::set(uint32_t slot, Layout layout, BufferId id) {
  Value& value = values_[slot];
  value[layout] = id;
  if (!sameOrder(slot)) return;
  if (layout == Layout::plain) value[Layout::channelsLast] = id;
  if (layout == Layout::channelsLast) value[Layout::plain] = id;
}

}  // namespace seresnet::cpu
