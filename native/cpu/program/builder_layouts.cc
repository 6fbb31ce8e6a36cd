#include <algorithm>

#include "builder.h"
#include "layout.h"

// In which layouts a builder has a tensor, and how it comes into others.
namespace seresnet::cpu {

namespace {

// What a step that only brings an image into a layout is called.
const char* reorderTo(Layout layout) {
  constexpr std::array<const char*, layouts> names{"to nchw", "to nhwc", "to nChw16c", "to bfloat16"};
  return names[static_cast<size_t>(layout)];
}

}  // namespace

size_t bytesIn(const Slot& slot, Layout layout) {
  return layout == Layout::bfloat16 ? static_cast<size_t>(slot.size()) * sizeof(uint16_t) : slot.bytes();
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
