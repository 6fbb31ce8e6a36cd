#include <algorithm>
#include <utility>

#include "builder.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/layout.h"
#include "ops/broadcast.h"

// In which forms a builder has a tensor, and how it comes into others.
namespace seresnet::cuda {

size_t deviceBytes(DType dtype) {
  if (dtype == DType::float16 || dtype == DType::bfloat16) return 2;
  return hostBytes(dtype);
}

size_t bytesOf(const Shape& shape, const Form& form) {
  int64_t size = sizeOf(shape);
  if (form.channels > 0) size = shape[0] * shape[2] * shape[3] * form.channels;
  return static_cast<size_t>(size) * deviceBytes(form.dtype);
}

bool Builder::has(size_t input, Layout layout) const {
  for (const Held& held : values_[step_->inputs[input]].forms)
    if (held.form.layout == layout && held.form.channels == 0) return true;
  return false;
}

Layout Builder::common() const {
  for (size_t i = 0; i < inputs(); ++i)
    if (input(i).shape.size() == 4 && has(i, Layout::channelsLast) && !sameOrder(input(i).shape))
      return Layout::channelsLast;
  return Layout::plain;
}

BufferId Builder::read(size_t input, Layout layout) { return read(input, Form{layout, inputType(input), 0}); }

BufferId Builder::read(size_t input, Form form) { return readSlot(step_->inputs[input], form); }

std::pair<BufferId, DType> Builder::readVector(size_t input) {
  const Value& value = values_[step_->inputs[input]];
  DType dtype = value.constant != nullptr ? DType::float32 : inputType(input);
  for (const Held& held : value.forms)
    if (held.form.layout == Layout::plain) dtype = held.form.dtype;
  return {read(input, Form{Layout::plain, dtype, 0}), dtype};
}

BufferId Builder::find(uint32_t slot, const Form& form) const {
  for (const Held& held : values_[slot].forms)
    if (held.form == form) return held.id;
  return none;
}

BufferId Builder::readSlot(uint32_t slot, const Form& form) {
  const BufferId there = find(slot, form);
  if (there >= 0) return touch(there);
  if (values_[slot].constant != nullptr) return touch(upload(slot, form));
  const auto& forms = values_[slot].forms;
  const auto unpadded = std::find_if(forms.begin(), forms.end(), [](const Held& held) { return held.form.channels == 0; });
  if (unpadded == forms.end()) throw Error(step_->op, "expected its input in a form it can read");
  // one of the same layout is cheaper to convert
  const auto like = std::find_if(forms.begin(), forms.end(), [&](const Held& held) {
    return held.form.channels == 0 && held.form.layout == form.layout;
  });
  return touch(convert(slot, like != forms.end() ? *like : *unpadded, form));
}

// Adds a kernel that brings a slot into another form.
BufferId Builder::convert(uint32_t slot, const Held& from, const Form& to) {
  const Shape& shape = plan_.slots[slot].shape;
  const Held source = from;
  const auto waiting = std::exchange(touched_, {});  // they belong to the kernel that is being built
  const auto said = std::exchange(passes_, {});
  const double flops = std::exchange(flops_, 0);
  Buffer buffer;
  buffer.block.bytes = bytesOf(shape, to);
  const BufferId target = add(std::move(buffer));
  touch(source.id);
  touch(target);
  const Step* current = step_;
  const Step reorder{to.layout == source.form.layout ? "to " + std::string(nameOf(to.dtype))
                     : to.layout == Layout::plain    ? "to nchw"
                                                     : "to nhwc",
                     {}, {}, {}};
  step_ = &reorder;
  emit("", conversion(shape, source, to, target));
  step_ = current;
  touched_ = waiting;
  passes_ = said;
  flops_ = flops;
  set(slot, to, target);
  return target;
}

Kernel Builder::conversion(const Shape& shape, const Held& from, const Form& to, BufferId target) const {
  const BufferId source = from.id;
  const bool sameLayout = from.form.layout == to.layout || sameOrder(shape);
  if (sameLayout && to.channels == 0) {
    return [=, type = from.form.dtype, count = sizeOf(shape)](Stream stream, const Pointers& p) {
      launchCast(stream, {p.at(source), type, p.at(target), to.dtype, count});
    };
  }
  if (shape.size() != 4) throw Error(step_->op, "expected a tensor of 4 dims to be brought into another layout");
  const Images images{shape[0], shape[2], shape[3], shape[1]};
  if (to.layout == Layout::channelsLast) {
    ToChannelsLastArguments arguments;
    arguments.from = from.form.dtype;
    arguments.channelsLast = from.form.layout == Layout::channelsLast;
    arguments.to = to.dtype;
    arguments.images = images;
    arguments.outChannels = to.channels > 0 ? to.channels : images.channels;
    return [=](Stream stream, const Pointers& p) mutable {
      arguments.x = p.at(source);
      arguments.y = p.at(target);
      launchToChannelsLast(stream, arguments);
    };
  }
  ToChannelsFirstArguments arguments;
  arguments.from = from.form.dtype;
  arguments.inChannels = images.channels;
  arguments.to = to.dtype;
  arguments.images = images;
  return [=](Stream stream, const Pointers& p) mutable {
    arguments.x = p.at(source);
    arguments.y = p.at(target);
    launchToChannelsFirst(stream, arguments);
  };
}

// A constant in a form, made once, now.
BufferId Builder::upload(uint32_t slot, const Form& form) {
  const Slot& tensor = plan_.slots[slot];
  const BufferId id = uploaded(tensor.shape, values_[slot].constant->data(), hostForm(tensor.dtype), form);
  set(slot, form, id);
  return id;
}

BufferId Builder::uploaded(const Shape& shape, const void* contents, const Form& given, const Form& form) {
  const Stream stream = context_.stream.get();
  const size_t bytes = cuda::bytesOf(shape, given);
  std::shared_ptr<DeviceMemory> memory = context_.pool->get(bytes), converted;
  const gpu::Drain drain({stream});
  if (bytes > 0) gpu::copyToDevice(stream, memory->data(), contents, bytes);
  const bool same = form.dtype == given.dtype && form.channels == 0 && (form.layout == given.layout || sameOrder(shape));
  if (!same) {
    converted = context_.pool->get(cuda::bytesOf(shape, form));
    const std::vector<char*> addresses{memory->data(), converted->data()};
    conversion(shape, {given, 0}, form, 1)(stream, Pointers(addresses));
  }
  try {
    gpu::synchronize(stream);
  } catch (const Error& error) {
    throw Error(error.call(), error.why() + " (bringing numbers " + format(shape) + " to the device for " + step_->op + ")",
                error.kind());
  }
  if (converted) memory = std::move(converted);
  Buffer buffer;
  buffer.kind = Buffer::Kind::constant;
  buffer.block.bytes = memory->bytes();
  buffer.contents = std::move(memory);
  return add(std::move(buffer));
}

BufferId Builder::write(size_t output, Layout layout) { return write(output, Form{layout, outputType(output), 0}); }

BufferId Builder::write(size_t output, Form form) {
  const uint32_t slot = step_->outputs[output];
  Buffer buffer;
  buffer.block.bytes = bytesOf(plan_.slots[slot].shape, form);
  const BufferId id = add(std::move(buffer));
  set(slot, form, id);
  return touch(id);
}

void Builder::alias(size_t input, size_t output) {
  const auto [id, dtype] = readVector(input);
  set(step_->outputs[output], Form{Layout::plain, dtype, 0}, id);
  touched_.clear();
}

std::vector<int64_t> Builder::strides(const Shape& shape, Layout layout) {
  if (layout == Layout::channelsLast && shape.size() == 4)
    return {shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1]};
  return ops::rowMajorStrides(shape);
}

// One channel, or one pixel: both layouts are one.
bool Builder::sameOrder(const Shape& shape) const {
  return shape.size() == 4 && (shape[1] == 1 || shape[2] * shape[3] == 1);
}

void Builder::set(uint32_t slot, const Form& form, BufferId id) {
  auto& forms = values_[slot].forms;
  forms.push_back({form, id});
  if (form.channels != 0 || !sameOrder(plan_.slots[slot].shape)) return;
  Form other = form;
  other.layout = form.layout == Layout::plain ? Layout::channelsLast : Layout::plain;
  forms.push_back({other, id});
}

}  // namespace seresnet::cuda
