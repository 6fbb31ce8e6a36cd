#include <filesystem>
#include <fstream>
#include <sstream>
#include <unordered_map>

#include <unistd.h>

#include "cuda/convolution/autotune.h"
#include "cudnn_graph.h"
#include "runtime/errors.h"

// ConvolutionEngine on cuDNN's graph API.
namespace seresnet::cuda {

namespace {

using cudnn::Api;
using cudnn::Candidate;
using cudnn::Descriptor;

constexpr size_t mostPlans = 1024;
constexpr size_t mostTimed = 12;

struct Session {
  explicit Session(const std::string& file) : api(file) { api.check(api.create(&handle), "cudnnCreate"); }
  ~Session() { api.destroy(handle); }

  Api api;
  cudnnHandle_t handle = nullptr;
};

class CudnnPlan final : public ConvolutionPlan {
 public:
  CudnnPlan(std::shared_ptr<Session> session, Descriptor plan, std::string name, const Convolution& convolution)
      : session_(std::move(session)), plan_(std::move(plan)), name_(std::move(name)), convolution_(convolution) {
    workspace_ = static_cast<size_t>(plan_.integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
  }

  size_t workspace() const override { return workspace_; }
  std::string name() const override { return name_; }
  std::string json() const { return plan_.text(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION); }

  void run(gpu::Stream stream, const ConvolutionPointers& p) const override {
    const Api& api = session_->api;
    api.check(api.setStream(session_->handle, stream), "cudnnSetStream");
    std::vector<int64_t> ids{cudnn::idX, cudnn::idW, cudnn::idY};
    std::vector<const void*> pointers{p.x, p.w, p.y};
    const auto add = [&](bool there, int64_t id, const void* pointer) {
      if (!there) return;
      ids.push_back(id);
      pointers.push_back(pointer);
    };
    add(convolution_.gate, cudnn::idGate, p.gate);
    add(convolution_.bias, cudnn::idBias, p.bias);
    add(convolution_.residual, cudnn::idResidual, p.residual);
    Descriptor pack(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "variant pack");
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(pointers.size()),
             pointers.data());
    pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &p.workspace);
    pack.finalize();
    api.check(api.execute(session_->handle, plan_.get(), pack.get()), "cudnnBackendExecute " + convolution_.text());
  }

 private:
  std::shared_ptr<Session> session_;
  Descriptor plan_;
  std::string name_;
  Convolution convolution_;
  size_t workspace_ = 0;
};

// Plans on disk, a file each: the key, the name, cuDNN's own JSON. Whatever is wrong with a file or the folder makes it a
// miss: the cache only saves time.
class DiskCache {
 public:
  explicit DiskCache(std::string folder) : folder_(std::move(folder)) {}

  struct Entry {
    std::string name, json;
  };

  Entry find(const std::string& key) const {
    Entry entry;
    std::string found;
    std::ifstream file(path(key));
    if (!folder_.empty() && std::getline(file, found) && found == key && std::getline(file, entry.name)) {
      std::ostringstream rest;
      rest << file.rdbuf();
      entry.json = rest.str();
    }
    return entry;
  }

  void keep(const std::string& key, const Entry& entry) const {
    if (folder_.empty()) return;
    std::error_code ignored;
    std::filesystem::create_directories(folder_, ignored);
    const std::string whole = path(key);
    const std::string part = whole + "." + std::to_string(getpid()) + ".part";
    {
      std::ofstream file(part);
      file << key << "\n" << entry.name << "\n" << entry.json;
      if (!file.flush()) {
        std::filesystem::remove(part, ignored);
        return;
      }
    }
    std::filesystem::rename(part, whole, ignored);
  }

 private:
  std::string path(const std::string& key) const {
    uint64_t hash = 14695981039346656037ULL;  // FNV-1a; the key in the file decides
    for (const char letter : key) hash = (hash ^ static_cast<unsigned char>(letter)) * 1099511628211ULL;
    std::ostringstream name;
    name << std::hex << hash << ".plan";
    return (std::filesystem::path(folder_) / name.str()).string();
  }

  std::string folder_;
};

class CudnnEngine final : public ConvolutionEngine {
 public:
  explicit CudnnEngine(const EngineOptions& options)
      : options_(options), session_(std::make_shared<Session>(options.cudnn)), disk_(options.cache) {
    const gpu::Properties device = gpu::properties(options.device);
    prefix_ = device.name + " sm_" + std::to_string(device.major) + std::to_string(device.minor) + " driver " +
              std::to_string(device.driver) + " cudnn " + std::to_string(session_->api.getVersion()) +
              (options.deterministic ? "" : " nondeterministic") + (options.autotune ? " tuned" : "") + " ";
  }

  std::shared_ptr<const ConvolutionPlan> plan(const Convolution& convolution) override {
    const std::string key = prefix_ + convolution.text();
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    auto made = fromDisk(key, convolution);
    if (!made) {
      made = choose(convolution);
      if (made) disk_.keep(key, {made->name(), made->json()});
    }
    if (plans_.size() >= mostPlans) plans_.clear();  // programs hold on to theirs
    plans_.emplace(key, made);
    return made;
  }

 private:
  std::shared_ptr<const CudnnPlan> fromDisk(const std::string& key, const Convolution& convolution) {
    const DiskCache::Entry entry = disk_.find(key);
    if (entry.json.empty()) return nullptr;
    try {
      Descriptor plan(session_->api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "execution plan");
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, session_->handle);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               static_cast<int64_t>(entry.json.size()), entry.json.data());
      plan.finalize();
      return std::make_shared<CudnnPlan>(session_, plan, entry.name, convolution);
    } catch (const Error&) {
      return nullptr;  // damaged, or another cuDNN's
    }
  }

  std::shared_ptr<const CudnnPlan> choose(const Convolution& c) {
    const cudnn::Target target{session_->handle, {}};
    const Descriptor graph = cudnn::operationGraph(session_->api, target, c);
    const cudnn::Wishes wishes{options_.deterministic, c.dtype == DType::float32 && !c.tf32};
    std::vector<std::shared_ptr<const CudnnPlan>> able;
    for (const Candidate& candidate : cudnn::candidates(session_->api, target, graph, wishes)) {
      const Descriptor plan = cudnn::makePlan(session_->api, target, candidate);
      if (plan.get() == nullptr) continue;
      able.push_back(std::make_shared<CudnnPlan>(session_, plan, candidate.name, c));
      if (!options_.autotune || able.size() == mostTimed) break;
    }
    if (!options_.autotune || able.empty()) return able.empty() ? nullptr : able.front();
    const auto best = fastest(c, {able.begin(), able.end()});
    return best ? able[*best] : nullptr;
  }

  EngineOptions options_;
  std::shared_ptr<Session> session_;
  DiskCache disk_;
  std::string prefix_;
  std::unordered_map<std::string, std::shared_ptr<const CudnnPlan>> plans_;
};

}  // namespace

std::unique_ptr<ConvolutionEngine> makeEngine(const EngineOptions& options) {
  return std::make_unique<CudnnEngine>(options);
}

}  // namespace seresnet::cuda
