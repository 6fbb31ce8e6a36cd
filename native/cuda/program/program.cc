#include "program.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime/threads.h"

namespace seresnet::cuda {

namespace {

constexpr size_t mostGraphs = 8;

DeviceMemory& device(const std::shared_ptr<Memory>& memory) { return static_cast<DeviceMemory&>(*memory); }

bool synchronousByWish() {
  const char* wish = std::getenv("SERESNET_CUDA_SYNC");
  return wish != nullptr && std::string(wish) != "" && std::string(wish) != "0";
}

}  // namespace

CudaProgram::CudaProgram(Plan plan, const std::vector<std::shared_ptr<HostMemory>>& constants, Context& context,
                         DType compute, bool tf32)
    : plan_(std::move(plan)), context_(context), synchronous_(synchronousByWish()) {
  Builder builder(plan_, constants, context_, compute, tf32);
  builder.build();
  buffers_ = std::move(builder.buffers);
  kernels_ = std::move(builder.kernels);
  outputs_ = std::move(builder.outputs);
  checks_ = std::move(builder.checks);
  writtenOf_.assign(builder.results, -1);
  for (size_t i = plan_.outputs.size(); i < outputs_.size(); ++i)
    writtenOf_[buffers_[static_cast<size_t>(outputs_[i])].index] = static_cast<int>(i - plan_.outputs.size());
  placeInArena();
  stream_ = gpu::makeStream();
  inStream_ = gpu::makeStream();
  outStream_ = gpu::makeStream();
  for (Lane& lane : lanes_) {
    for (const uint32_t slot : plan_.inputs) {
      lane.inputs.push_back(context_.pool->get(plan_.slots[slot].bytes()));
      lane.inputStaging.push_back(std::make_unique<PinnedMemory>(plan_.slots[slot].bytes()));
    }
    lane.results.resize(builder.results);
    lane.resultStaging.resize(builder.results);
    for (const Buffer& buffer : buffers_) {
      if (buffer.kind != Buffer::Kind::result || writtenOf_[buffer.index] >= 0) continue;
      lane.results[buffer.index] = context_.pool->get(buffer.block.bytes);
      lane.resultStaging[buffer.index] = std::make_unique<PinnedMemory>(buffer.block.bytes);
    }
    lane.copiedIn = gpu::makeEvent();
    lane.computed = gpu::makeEvent();
    lane.copiedOut = gpu::makeEvent();
  }
}

CudaProgram::~CudaProgram() {
  try {
    gpu::use(context_.device);
  } catch (const Error&) {
    // the device is lost, which waiting finds out as well
  }
  const gpu::Drain drain(streams());  // memory goes back to the pool when the device has done with it
}

void CudaProgram::run(Run& run) {
  gpu::use(context_.device);
  Lane& lane = takeLane();
  try {
    Written written;
    gpu::Drain drain(streams());
    enqueue(begin(lane, run, written));
    gpu::record(lane.computed.get(), stream_.get());
    if (!written.empty()) {
      const auto ready = gpu::makeEvent();  // the lane's own is recorded again by a later run
      gpu::record(ready.get(), stream_.get());
      for (const auto& memory : written) memory->ready = ready;
    }
    copyOut(lane);
    for (auto& memory : written) run.written.push_back(std::move(memory));
    drain.dismiss();  // finish waits
  } catch (...) {
    release(lane);
    throw;
  }
  run.finish = [this, &lane, &run] {
    try {
      collect(lane, run);
    } catch (...) {
      release(lane);
      throw;
    }
    release(lane);
  };
}

size_t CudaProgram::bytes() const {
  size_t total = arena_->bytes();
  for (const Buffer& buffer : buffers_)
    if (buffer.contents) total += buffer.contents->bytes();
  return total;
}

std::vector<std::string> CudaProgram::kernels() const {
  std::vector<std::string> names;
  for (const NamedKernel& kernel : kernels_) names.push_back(kernel.name());
  return names;
}

CudaProgram::Lane& CudaProgram::takeLane() {
  Lane& lane = lanes_[nextLane_++ % 2];
  std::unique_lock<std::mutex> lock(mutex_);
  waitUntil(released_, lock, [&] { return !lane.busy; });
  lane.busy = true;
  return lane;
}

void CudaProgram::release(Lane& lane) {
  const std::lock_guard<std::mutex> lock(mutex_);
  lane.busy = false;
  released_.notify_all();
}

std::vector<char*> CudaProgram::begin(Lane& lane, const Run& run, Written& written) {
  for (const uint32_t slot : plan_.written) written.push_back(context_.pool->get(plan_.slots[slot].bytes()));
  copyIn(lane, run);
  gpu::wait(stream_.get(), lane.copiedIn.get());
  for (const auto& variable : run.variables)
    if (const auto& ready = device(variable).ready) gpu::wait(stream_.get(), ready.get());
  return addressesOf(lane, run, written);
}

void CudaProgram::copyIn(Lane& lane, const Run& run) {
  for (size_t i = 0; i < lane.inputs.size(); ++i) {
    const size_t bytes = lane.inputs[i]->bytes();
    if (bytes == 0) continue;
    std::memcpy(lane.inputStaging[i]->data(), run.inputs[i]->data(), bytes);
    gpu::copyToDevice(inStream_.get(), lane.inputs[i]->data(), lane.inputStaging[i]->data(), bytes);
  }
  gpu::record(lane.copiedIn.get(), inStream_.get());
}

std::vector<char*> CudaProgram::addressesOf(const Lane& lane, const Run& run, const Written& written) const {
  std::vector<char*> addresses = addresses_;
  for (size_t id = 0; id < buffers_.size(); ++id) {
    const Buffer& buffer = buffers_[id];
    if (buffer.kind == Buffer::Kind::input) addresses[id] = lane.inputs[buffer.index]->data();
    if (buffer.kind == Buffer::Kind::variable) addresses[id] = device(run.variables[buffer.index]).data();
    if (buffer.kind != Buffer::Kind::result) continue;
    const int index = writtenOf_[buffer.index];
    addresses[id] = (index < 0 ? lane.results[buffer.index] : written[static_cast<size_t>(index)])->data();
  }
  return addresses;
}

// Addresses that come a second time will come again: their work is recorded and from then on put into the stream with one
// call. The first time loads whatever the kernels need, which must not happen while they are recorded.
void CudaProgram::enqueue(const std::vector<char*>& addresses) {
  ++uses_;
  for (Recorded& known : recorded_) {
    if (known.addresses != addresses) continue;
    known.lastUse = uses_;
    if (record(known)) known.graph->launch(stream_.get());
    else compute(addresses);
    return;
  }
  compute(addresses);
  if (recorded_.size() >= mostGraphs) {
    const auto oldest = std::min_element(recorded_.begin(), recorded_.end(),
                                         [](const Recorded& a, const Recorded& b) { return a.lastUse < b.lastUse; });
    if (oldest->graph) gpu::synchronize(stream_.get());  // it may be running
    recorded_.erase(oldest);
  }
  recorded_.push_back({addresses, nullptr, uses_, synchronous_});
}

// Whether work is recorded now. A graph only saves time: where there is none, the kernels themselves say what is wrong.
bool CudaProgram::record(Recorded& known) {
  if (known.graph) return true;
  if (known.refused) return false;
  try {
    known.graph = gpu::capture(stream_.get(), [&] { compute(known.addresses); });
  } catch (const Error& error) {
    known.refused = true;
    notRecorded_ = error.what();
  }
  return known.graph != nullptr;
}

void CudaProgram::compute(const std::vector<char*>& addresses) {
  const Pointers pointers(addresses);
  for (const NamedKernel& kernel : kernels_) launch(kernel, pointers);
}

void CudaProgram::launch(const NamedKernel& kernel, const Pointers& pointers) {
  try {
    kernel.kernel(stream_.get(), pointers);
    if (synchronous_) gpu::synchronize(stream_.get());
  } catch (const Error& error) {
    const auto number = &kernel - kernels_.data() + 1;
    throw Error(error.call(), error.why() + " (kernel " + std::to_string(number) + " of " + std::to_string(kernels_.size()) +
                                  ", " + kernel.name() + shapesOf(kernel.step) + ")", error.kind());
  }
}

// ": [2, 3, 8, 8], [4, 3, 1, 1] -> [2, 4, 8, 8]", or nothing for what belongs to no step.
std::string CudaProgram::shapesOf(int step) const {
  if (step < 0) return "";
  std::string all;
  const auto& [op, attributes, inputs, outputs] = plan_.steps[static_cast<size_t>(step)];
  for (const uint32_t slot : inputs) all += (all.empty() ? ": " : ", ") + format(plan_.slots[slot].shape);
  for (size_t i = 0; i < outputs.size(); ++i) all += (i == 0 ? " -> " : ", ") + format(plan_.slots[outputs[i]].shape);
  return all;
}

// Waiting tells of failures of what ran before, and of which kernel's it is only where each was waited for.
void CudaProgram::await(const std::function<void()>& wait) const {
  try {
    wait();
  } catch (const Error& error) {
    if (synchronous_) throw;
    throw Error(error.call(), error.why() + " (SERESNET_CUDA_SYNC=1 names the kernel that failed)", error.kind());
  }
}

void CudaProgram::copyOut(Lane& lane) {
  gpu::wait(outStream_.get(), lane.computed.get());
  for (size_t i = 0; i < lane.results.size(); ++i) {
    if (!lane.results[i] || lane.results[i]->bytes() == 0) continue;
    gpu::copyToHost(outStream_.get(), lane.resultStaging[i]->data(), lane.results[i]->data(), lane.results[i]->bytes());
  }
  gpu::record(lane.copiedOut.get(), outStream_.get());
}

void CudaProgram::collect(Lane& lane, Run& run) {
  gpu::use(context_.device);
  await([&] { gpu::synchronize(lane.copiedOut.get()); });
  for (const Check& check : checks_) {
    int32_t found = 0;
    std::memcpy(&found, lane.resultStaging[buffers_[static_cast<size_t>(check.flag)].index]->data(), sizeof found);
    if (found != 0) throw check.error(found, run);
  }
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const Buffer& buffer = buffers_[static_cast<size_t>(outputs_[i])];
    auto memory = std::make_shared<HostMemory>(plan_.slots[plan_.outputs[i]].bytes());
    if (memory->bytes() > 0) std::memcpy(memory->data(), lane.resultStaging[buffer.index]->data(), memory->bytes());
    run.outputs.push_back(std::move(memory));
  }
}

void CudaProgram::placeInArena() {
  constexpr size_t alignment = 256;  // what cudaMalloc gives, so that vector accesses fit everywhere
  std::vector<Block> blocks;
  std::vector<size_t> owners;
  for (size_t id = 0; id < buffers_.size(); ++id) {
    const Buffer& buffer = buffers_[id];
    if (buffer.kind != Buffer::Kind::arena || buffer.block.first < 0) continue;
    blocks.push_back(buffer.block);
    blocks.back().bytes = (std::max<size_t>(buffer.block.bytes, 1) + alignment - 1) / alignment * alignment;
    owners.push_back(id);
  }
  arena_ = context_.pool->get(placeBlocks(blocks));
  addresses_.assign(buffers_.size(), nullptr);
  for (size_t i = 0; i < blocks.size(); ++i) addresses_[owners[i]] = arena_->data() + blocks[i].offset;
  for (size_t id = 0; id < buffers_.size(); ++id)
    if (buffers_[id].contents) addresses_[id] = buffers_[id].contents->data();
}

}  // namespace seresnet::cuda
