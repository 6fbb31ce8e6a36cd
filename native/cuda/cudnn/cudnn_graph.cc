#include "cudnn_graph.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "devices/cudnn.h"
#include "runtime/errors.h"

namespace seresnet::cuda::cudnn {

namespace {

// cuDNN opens these by name when it needs them, and aborts the process where cuBLASLt is not there. Opened here first, from
// where pip, the CUDA toolkit or the loader has them, they are found.
void openCompanions(const std::filesystem::path& folder) {
  const std::filesystem::path places[] = {"", folder, folder / "../../cu13/lib", folder / "../../cublas/lib",
                                          folder / "../../cuda_nvrtc/lib", "/usr/local/cuda/lib64"};
  const auto open = [&](const std::string& name) {
    for (const auto& place : places) {
      try {
        const Library found((place / name).string());
        return true;
      } catch (const Error&) {
        // the next place
      }
    }
    return false;
  };
  for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12"})
    if (open(name)) break;
  if (!open("libcublasLt.so.13") && !open("libcublasLt.so.12"))
    throw Error("dlopen", "cuDNN needs libcublasLt.so.13, which is neither beside it nor where the loader looks "
                          "(npm run setup -- --cuda installs both)");
}

}  // namespace

Api::Api(const std::string& file) : library_(openGraph(std::filesystem::path(file).parent_path())) {
  openCompanions(std::filesystem::path(file).parent_path());
  const auto load = [&](auto& function, const char* name) {
    function = library_.symbol<std::remove_reference_t<decltype(function)>>(name);
  };
  load(getVersion, "cudnnGetVersion");
  load(getErrorString, "cudnnGetErrorString");
  load(getLastErrorString, "cudnnGetLastErrorString");
  load(create, "cudnnCreate");
  load(destroy, "cudnnDestroy");
  load(setStream, "cudnnSetStream");
  load(createDescriptor, "cudnnBackendCreateDescriptor");
  load(destroyDescriptor, "cudnnBackendDestroyDescriptor");
  load(finalize, "cudnnBackendFinalize");
  load(setAttribute, "cudnnBackendSetAttribute");
  load(getAttribute, "cudnnBackendGetAttribute");
  load(execute, "cudnnBackendExecute");
}

void Api::check(cudnnStatus_t status, const std::string& call) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char words[512] = {};
  getLastErrorString(words, sizeof words);
  const std::string said(words, std::strcspn(words, "\n"));
  throw Error(call, getErrorString(status) + (said.empty() ? "" : ": " + said) + " (cuDNN " + version() + ")");
}

std::string Api::version() const {
  const size_t number = getVersion();
  return std::to_string(number / 10000) + "." + std::to_string(number % 10000 / 100) + "." + std::to_string(number % 100);
}

Descriptor::Descriptor(const Api& api, cudnnBackendDescriptorType_t type, const char* name) : api_(&api), name_(name) {
  cudnnBackendDescriptor_t made = nullptr;
  api.check(api.createDescriptor(type, &made), std::string("cudnnBackendCreateDescriptor ") + name);
  shared_ = {new cudnnBackendDescriptor_t(made), [&api](cudnnBackendDescriptor_t* last) {
               api.destroyDescriptor(*last);
               delete last;
             }};
}

void Descriptor::set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count,
                     const void* values) {
  api_->check(api_->setAttribute(get(), attribute, type, count, values),
              std::string("cudnnBackendSetAttribute ") + name_ + " " + std::to_string(attribute));
}

void Descriptor::set(cudnnBackendAttributeName_t attribute, const std::vector<int64_t>& values) {
  set(attribute, CUDNN_TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
}

void Descriptor::set(cudnnBackendAttributeName_t attribute, const Descriptor& value) {
  const cudnnBackendDescriptor_t raw = value.get();
  set(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
}

void Descriptor::set(cudnnBackendAttributeName_t attribute, const std::vector<Descriptor>& values) {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& value : values) raw.push_back(value.get());
  set(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
}

void Descriptor::finalize() { api_->check(api_->finalize(get()), std::string("cudnnBackendFinalize ") + name_); }

bool Descriptor::tryFinalize() { return api_->finalize(get()) == CUDNN_STATUS_SUCCESS; }

int64_t Descriptor::count(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type) const {
  int64_t number = 0;
  api_->check(api_->getAttribute(get(), attribute, type, 0, &number, nullptr),
              std::string("cudnnBackendGetAttribute ") + name_ + " " + std::to_string(attribute));
  return number;
}

template <typename T>
std::vector<T> Descriptor::values(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type) const {
  std::vector<T> all(static_cast<size_t>(count(attribute, type)));
  int64_t number = 0;
  if (!all.empty())
    api_->check(api_->getAttribute(get(), attribute, type, static_cast<int64_t>(all.size()), &number, all.data()),
                std::string("cudnnBackendGetAttribute ") + name_ + " " + std::to_string(attribute));
  all.resize(static_cast<size_t>(std::max<int64_t>(number, 0)));
  return all;
}

int64_t Descriptor::integer(cudnnBackendAttributeName_t attribute) const {
  int64_t value = 0;
  int64_t number = 0;
  api_->check(api_->getAttribute(get(), attribute, CUDNN_TYPE_INT64, 1, &number, &value),
              std::string("cudnnBackendGetAttribute ") + name_ + " " + std::to_string(attribute));
  return value;
}

std::string Descriptor::text(cudnnBackendAttributeName_t attribute) const {
  const auto letters = values<char>(attribute, CUDNN_TYPE_CHAR);
  const std::string whole(letters.begin(), letters.end());
  return whole.substr(0, whole.find('\0'));
}

std::vector<Descriptor> Descriptor::descriptors(cudnnBackendAttributeName_t attribute,
                                                cudnnBackendDescriptorType_t type, const char* name,
                                                int64_t most) const {
  std::vector<Descriptor> all;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < most; ++i) {
    all.emplace_back(*api_, type, name);
    raw.push_back(all.back().get());
  }
  int64_t number = 0;
  api_->check(api_->getAttribute(get(), attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &number, raw.data()),
              std::string("cudnnBackendGetAttribute ") + name_ + " " + std::to_string(attribute));
  all.resize(static_cast<size_t>(std::clamp<int64_t>(number, 0, most)));
  return all;
}

namespace {

cudnnDataType_t typeOf(DType dtype) {
  if (dtype == DType::float16) return CUDNN_DATA_HALF;
  return dtype == DType::bfloat16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

// Dims [N, C, H, W] of a channels-last tensor.
Descriptor tensor(const Api& api, int64_t id, const std::array<int64_t, 4>& dims, DType dtype, int64_t alignment = 16,
                  bool isVirtual = false) {
  const auto [n, c, h, w] = dims;
  Descriptor made(api, CUDNN_BACKEND_TENSOR_DESCRIPTOR, "tensor");
  const cudnnDataType_t type = typeOf(dtype);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::vector<int64_t>{n, c, h, w});
  made.set(CUDNN_ATTR_TENSOR_STRIDES, std::vector<int64_t>{h * w * c, 1, w * c, c});
  made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
  if (isVirtual) made.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &isVirtual);
  made.finalize();
  return made;
}

Descriptor pointwise(const Api& api, cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b,
                     const Descriptor& y) {
  Descriptor how(api, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "pointwise");
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  how.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  how.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  how.finalize();
  Descriptor made(api, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "pointwise operation");
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b != nullptr) made.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  made.finalize();
  return made;
}

Descriptor convolutionOf(const Api& api, const Convolution& c) {
  const auto pair = [](const int64_t (&values)[2]) { return std::vector<int64_t>{values[0], values[1]}; };
  Descriptor made(api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "convolution");
  const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  made.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2});
  made.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
  made.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  made.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, pair(c.dilation));
  made.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, pair(c.stride));
  made.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pair(c.padding));
  made.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pair(c.padding));
  made.finalize();
  return made;
}

// The names of one pass's attributes.
struct PassNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t alpha, beta, convolution, x, w, y;
};

PassNames namesOf(Convolution::Pass pass) {
  if (pass == Convolution::Pass::inputGradient)
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY};
  if (pass == Convolution::Pass::weightGradient)
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY};
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y};
}

}  // namespace

Descriptor deviceProperties(const Api& api, const std::string& json) {
  Descriptor made(api, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "device properties");
  made.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()), json.data());
  made.finalize();
  return made;
}

Descriptor operationGraph(const Api& api, const Target& target, const Convolution& c) {
  const std::array<int64_t, 4> yDims{c.batch, c.outChannels, c.outHeight, c.outWidth};
  struct Point {
    cudnnPointwiseMode_t mode;
    bool operand;
    Id id;
  };
  // Precompiled engines add the residual before the bias; a gate scales what is biased.
  std::vector<Point> points;
  if (c.residual && !c.gate) points.push_back({CUDNN_POINTWISE_ADD, true, idResidual});
  if (c.bias) points.push_back({CUDNN_POINTWISE_ADD, true, idBias});
  if (c.gate) points.push_back({CUDNN_POINTWISE_MUL, true, idGate});
  if (c.residual && c.gate) points.push_back({CUDNN_POINTWISE_ADD, true, idResidual});
  if (c.relu) points.push_back({CUDNN_POINTWISE_RELU_FWD, false, idX});

  int64_t next = idVirtual;
  // y after so many of the points: what leaves, or what stays inside.
  const auto after = [&](size_t done) {
    return done == points.size() ? tensor(api, idY, yDims, c.dtype, c.yAlignment)
                                 : tensor(api, next++, yDims, DType::float32, 16, true);
  };
  const PassNames names = namesOf(c.pass);
  Descriptor current = after(0);
  Descriptor operation(api, names.operation, "convolution operation");
  const float one = 1, zero = 0;
  operation.set(names.alpha, CUDNN_TYPE_FLOAT, 1, &one);
  operation.set(names.beta, CUDNN_TYPE_FLOAT, 1, &zero);
  operation.set(names.convolution, convolutionOf(api, c));
  operation.set(names.x, tensor(api, idX, {c.batch, c.channels, c.height, c.width}, c.dtype, c.xAlignment));
  const std::array<int64_t, 4> wDims{c.outChannels, c.channels / c.groups, c.kernel[0], c.kernel[1]};
  operation.set(names.w, tensor(api, idW, wDims, c.dtype, c.wAlignment));
  operation.set(names.y, current);
  operation.finalize();
  std::vector<Descriptor> operations{operation};
  for (size_t i = 0; i < points.size(); ++i) {
    const Point& point = points[i];
    Descriptor operand;
    if (point.operand) {
      std::array<int64_t, 4> dims = yDims;
      if (point.id != idResidual) dims = {point.id == idGate ? c.batch : 1, c.outChannels, 1, 1};
      operand = tensor(api, point.id, dims, c.dtype);
    }
    const Descriptor result = after(i + 1);
    operations.push_back(pointwise(api, point.mode, current, point.operand ? &operand : nullptr, result));
    current = result;
  }
  Descriptor graph(api, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "operation graph");
  if (target.handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations);
  graph.finalize();
  return graph;
}

std::vector<Candidate> candidates(const Api& api, const Target& target, const Descriptor& graph, const Wishes& wishes) {
  std::vector<Candidate> all;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    Descriptor heuristic(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "heuristic");
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (target.properties.get() != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.properties);
    if (!heuristic.tryFinalize()) continue;  // nothing known about this graph
    const int64_t count = heuristic.count(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR);
    for (const Descriptor& config : heuristic.descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                          CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "configuration", count)) {
      const auto engines = config.descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, "engine", 1);
      if (engines.empty()) continue;
      const auto numerical =
          engines[0].values<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE);
      const auto behavior =
          engines[0].values<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE);
      const auto notes = [&](cudnnBackendNumericalNote_t note) {
        return std::find(numerical.begin(), numerical.end(), note) != numerical.end();
      };
      if (wishes.deterministic && notes(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) continue;
      if (notes(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) continue;
      if (wishes.ieee && (notes(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || notes(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) ||
                          notes(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6) ||
                          notes(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13)))
        continue;
      const bool compiled =
          std::find(behavior.begin(), behavior.end(), CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != behavior.end();
      all.push_back({config, "cudnn " + std::to_string(engines[0].integer(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)), compiled});
    }
  }
  return all;
}

Descriptor makePlan(const Api& api, const Target& target, const Candidate& candidate) {
  Descriptor plan(api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "execution plan");
  if (target.handle != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target.handle);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, candidate.config);
  if (target.properties.get() != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target.properties);
  return plan.tryFinalize() ? plan : Descriptor();
}

}  // namespace seresnet::cuda::cudnn
