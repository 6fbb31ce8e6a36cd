#pragma once

#include <cudnn_graph.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/convolution/convolution.h"
#include "runtime/library.h"

// cuDNN's graph API (its C functions, called "backend" there), with what convolutions need of it. Only builds with cuDNN's
// headers have this; the library itself is opened at run time, and may be older than they are: whoever uses what cuDNN 9.10
// lacks asks for its version first. test/cudnn_plans.test.ts has the names that are there.
namespace seresnet::cuda::cudnn {

// The functions of libcudnn_graph.so.9.
class Api {
 public:
  // `file` is libcudnn.so.9 as findCudnn found it.
  explicit Api(const std::string& file);

  // Throws Error(call, …), in cuDNN's words, unless the status says success.
  void check(cudnnStatus_t status, const std::string& call) const;

  // "9.10.2".
  std::string version() const;

  decltype(&cudnnGetVersion) getVersion;
  decltype(&cudnnGetErrorString) getErrorString;
  decltype(&cudnnGetLastErrorString) getLastErrorString;
  decltype(&cudnnCreate) create;
  decltype(&cudnnDestroy) destroy;
  decltype(&cudnnSetStream) setStream;
  decltype(&cudnnBackendCreateDescriptor) createDescriptor;
  decltype(&cudnnBackendDestroyDescriptor) destroyDescriptor;
  decltype(&cudnnBackendFinalize) finalize;
  decltype(&cudnnBackendSetAttribute) setAttribute;
  decltype(&cudnnBackendGetAttribute) getAttribute;
  decltype(&cudnnBackendExecute) execute;

 private:
  Library library_;
};

// One descriptor. Copies share it.
class Descriptor {
 public:
  Descriptor() = default;
  Descriptor(const Api& api, cudnnBackendDescriptorType_t type, const char* name);

  void set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  void set(cudnnBackendAttributeName_t attribute, const std::vector<int64_t>& values);
  void set(cudnnBackendAttributeName_t attribute, int64_t value) { set(attribute, CUDNN_TYPE_INT64, 1, &value); }
  void set(cudnnBackendAttributeName_t attribute, const Descriptor& value);
  void set(cudnnBackendAttributeName_t attribute, const std::vector<Descriptor>& values);
  void set(cudnnBackendAttributeName_t attribute, cudnnHandle_t value) { set(attribute, CUDNN_TYPE_HANDLE, 1, &value); }
  void finalize();
  // False where cuDNN says that it does not support this.
  bool tryFinalize();

  int64_t count(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type) const;
  template <typename T>
  std::vector<T> values(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type) const;
  int64_t integer(cudnnBackendAttributeName_t attribute) const;
  std::string text(cudnnBackendAttributeName_t attribute) const;
  // What other descriptors an attribute holds, at most so many of this type.
  std::vector<Descriptor> descriptors(cudnnBackendAttributeName_t attribute, cudnnBackendDescriptorType_t type,
                                      const char* name, int64_t most) const;

  cudnnBackendDescriptor_t get() const { return shared_ ? *shared_ : nullptr; }

 private:
  const Api* api_ = nullptr;
  const char* name_ = "";
  std::shared_ptr<cudnnBackendDescriptor_t> shared_;
};

// Tensors of a convolution's graph by their unique ids.
enum Id : int64_t { idX = 1, idW, idY, idGate, idBias, idResidual, idVirtual };

// Where plans are for: a device with its handle, or the properties of one that is not there.
struct Target {
  cudnnHandle_t handle = nullptr;
  Descriptor properties;
};

// The properties of a device that is not there, from cuDNN's JSON of them.
Descriptor deviceProperties(const Api& api, const std::string& json);

// The graph of a convolution and its epilogue.
Descriptor operationGraph(const Api& api, const Target& target, const Convolution& convolution);

struct Candidate {
  Descriptor config;
  std::string name;  // of its engine
  bool compiled;     // only at run time
};

struct Wishes {
  bool deterministic = true;
  bool ieee = true;  // float32 products must be whole
};

// Engine configurations that fulfil the wishes, best first: heuristic mode A, then fallback; empty where there is none.
std::vector<Candidate> candidates(const Api& api, const Target& target, const Descriptor& graph, const Wishes& wishes);

// A finalized execution plan, or an empty descriptor where cuDNN does not support the configuration after all.
Descriptor makePlan(const Api& api, const Target& target, const Candidate& candidate);

}  // namespace seresnet::cuda::cudnn
