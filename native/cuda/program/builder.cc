#include "builder.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/layout.h"
#include "cuda/ops/ops.h"
#include "ops/broadcast.h"

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

namespace {

// As the host holds it: floats are float32, everything is plain.
Form hostForm(DType dtype) { return {Layout::plain, isFloat(dtype) ? DType::float32 : dtype, 0}; }

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

const float* Builder::constant(size_t input) const {
  const uint32_t slot = step_->inputs[input];
  const HostMemory* host = values_[slot].constant;
  return host != nullptr && isFloat(plan_.slots[slot].dtype) ? host->data<float>() : nullptr;
}

BufferId Builder::keep(const std::vector<float>& values, DType dtype) {
  return uploaded({static_cast<int64_t>(values.size())}, values.data(), Form{}, Form{Layout::plain, dtype, 0});
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

std::vector<int64_t> Builder::strides(const Shape& shape, Layout layout) {
  if (layout == Layout::channelsLast && shape.size() == 4)
    return {shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1]};
  return ops::rowMajorStrides(shape);
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
