#include "backend.h"

#include "cuda/program/program.h"
#include "ops/table.h"

namespace seresnet::cuda {

namespace {

// Everything happens on the executor thread, the device's start (a CUDA context, cuDNN) with the first thing asked of it.
class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const OpenOptions& options) : options_(options) {}

  std::shared_ptr<Memory> upload(std::shared_ptr<HostMemory> contents) override {
    const Context& context = ready();
    std::shared_ptr<DeviceMemory> memory = context.pool->get(contents->bytes());
    const gpu::Drain drain({context.stream.get()});
    if (contents->bytes() > 0)
      gpu::copyToDevice(context.stream.get(), memory->data(), contents->data(), contents->bytes());
    gpu::synchronize(context.stream.get());
    return memory;
  }

  std::shared_ptr<HostMemory> download(std::shared_ptr<Memory> contents) override {
    const Context& context = ready();
    const auto& memory = static_cast<const DeviceMemory&>(*contents);
    auto copy = std::make_shared<HostMemory>(memory.bytes());
    const gpu::Drain drain({context.stream.get()});
    if (memory.ready) gpu::wait(context.stream.get(), memory.ready.get());
    if (copy->bytes() > 0) gpu::copyToHost(context.stream.get(), copy->data(), memory.data(), memory.bytes());
    gpu::synchronize(context.stream.get());
    return copy;
  }

  std::unique_ptr<Program> load(Plan plan, std::vector<std::shared_ptr<HostMemory>> constants,
                                const LoadOptions& options) override {
    Context& context = ready();
    const bool tf32 = options.compute == "tf32";
    const auto compute = dtypeNamed(tf32 ? "float32" : options.compute);
    if (!compute || !isFloat(*compute))
      throw Error("cuda", "expected compute float32, tf32, float16 or bfloat16, got " + options.compute, Error::dtype);
    if ((tf32 || compute == DType::bfloat16) && properties_.major < 8)
      throw Error("cuda", "expected compute capability 8.0 for " + options.compute + ", got " +
                              std::to_string(properties_.major) + "." + std::to_string(properties_.minor) +
                              " (float32 and float16 work)", Error::dtype);
    return std::make_unique<CudaProgram>(std::move(plan), constants, context, *compute, tf32);
  }

 private:
  Context& ready() {
    if (context_.pool) {
      gpu::use(context_.device);
      return context_;
    }
    const int devices = gpu::count();
    if (options_.device >= devices)
      throw Error("cuda", "expected a device from 0 to " + std::to_string(devices - 1) + ", got " +
                              std::to_string(options_.device), Error::argument);
    gpu::use(options_.device);
    properties_ = gpu::properties(options_.device);
    Context fresh;
    fresh.device = options_.device;
    fresh.stream = gpu::makeStream();
    fresh.engine = makeEngine({options_.device, options_.cudnn, options_.cache, options_.deterministic, options_.autotune});
    fresh.pool = std::make_shared<Pool>(options_.device, options_.memoryLimit);
    context_ = std::move(fresh);
    return context_;
  }

  OpenOptions options_;
  Context context_;
  gpu::Properties properties_;
};

}  // namespace

std::unique_ptr<Backend> makeBackend(const OpenOptions& options) { return std::make_unique<CudaBackend>(options); }

std::vector<std::string> opNames() { return {SERESNET_OPS(SERESNET_OP_NAME)}; }

}  // namespace seresnet::cuda
