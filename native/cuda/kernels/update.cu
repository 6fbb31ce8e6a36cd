#include "update.h"

#include "lanes.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;
constexpr int64_t chunk = 16 * threads;  // elements a block

int64_t chunksOf(int64_t longest) { return std::max<int64_t>(divideUp(longest, chunk), 1); }

__device__ __forceinline__ float gradientOf(const UpdateTensor& tensor, DType type, int64_t i) {
  return at(Vector{tensor.gradient, type}, i, 0.F);
}

__device__ __forceinline__ bool skipped(const UpdateArguments& a) { return a.skip != nullptr && *a.skip != 0; }

// The tensors of one launch.
struct Batch {
  static constexpr int64_t most = 48;  // 3 KiB of the 4 that every device takes as parameters
  UpdateTensor tensors[most];
};

// Calls use(tensor, element) for the elements of this block's chunk: x counts tensors, y and z their chunks.
template <typename Use>
__device__ __forceinline__ void overChunk(const Batch& batch, Use use) {
  const UpdateTensor& tensor = batch.tensors[blockIdx.x];
  const int64_t first = (int64_t{blockIdx.z} * gridDim.y + blockIdx.y) * chunk;
  const int64_t end = min(first + chunk, tensor.count);
  for (int64_t i = first + threadIdx.x; i < end; i += threads) use(tensor, i);
}

// Parameters and `states` of state are what they were.
__device__ __forceinline__ void stay(const Batch& batch, int states) {
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    t.newParameter[i] = t.parameter[i];
    for (int k = 0; k < states; ++k) t.newState[k][i] = t.state[k][i];
  });
}

// Moves parameter, velocity and gradient in, parameter and velocity out, once each. Bound: memory.
__global__ void __launch_bounds__(threads) sgdKernel(SgdArguments a, Batch batch) {
  if (skipped(a.update)) return stay(batch, 1);
  const float lr = *a.lr, momentum = *a.momentum, decay = *a.weightDecay;
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    const float parameter = t.parameter[i];
    const float g = gradientOf(t, a.update.gradientType, i) + decay * parameter;
    const float v = momentum * t.state[0][i] + g;
    t.newState[0][i] = v;
    t.newParameter[i] = parameter - lr * (a.nesterov ? g + momentum * v : v);
  });
}

// Moves parameter, two moments and gradient in, parameter and moments out, once each. Bound: memory.
__global__ void __launch_bounds__(threads) adamwKernel(AdamwArguments a, Batch batch) {
  if (skipped(a.update)) return stay(batch, 2);
  SHARED(float, settings, 2);
  if (threadIdx.x == 0) {  // powers in float64, once a block
    settings[0] = static_cast<float>(*a.lr / (1 - pow(static_cast<double>(*a.beta1), static_cast<double>(*a.step))));
    settings[1] = static_cast<float>(1 / sqrt(1 - pow(static_cast<double>(*a.beta2), static_cast<double>(*a.step))));
  }
  __syncthreads();
  const float beta1 = *a.beta1, beta2 = *a.beta2, eps = *a.eps;
  const float kept = 1 - *a.lr * *a.weightDecay;
  const float rate = settings[0], correction = settings[1];
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    const float g = gradientOf(t, a.update.gradientType, i);
    const float m = beta1 * t.state[0][i] + (1 - beta1) * g;
    const float v = beta2 * t.state[1][i] + (1 - beta2) * g * g;
    t.newState[0][i] = m;
    t.newState[1][i] = v;
    t.newParameter[i] = t.parameter[i] * kept - rate * m / (sqrtf(v) * correction + eps);
  });
}

// Moves one float. Bound: latency.
__global__ void zeroKernel(float* value) { *value = 0; }

__device__ __forceinline__ bool finite(float value) { return value - value == 0; }

// Every thread that writes writes the same.
// Moves the gradients once. Bound: memory.
__global__ void __launch_bounds__(threads) foundInfKernel(Batch batch, DType type, float* found) {
  bool any = false;
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) { any = any || !finite(gradientOf(t, type, i)); });
  if (any) *found = 1;
}

// The sum of squares of each chunk, in float64; chunks past a tensor's end give 0.
// Moves the tensors once, a double a chunk. Bound: memory.
__global__ void __launch_bounds__(threads)
    squaresKernel(Batch batch, DType type, double* partial) {
  SHARED(double, scratch, 32);
  double sum = 0;
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    const double g = gradientOf(t, type, i);
    sum += g * g;
  });
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) partial[(int64_t{blockIdx.z} * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// Moves a double a chunk. Bound: latency, one block.
__global__ void __launch_bounds__(1024) normKernel(const double* partial, int64_t count, float* norm) {
  SHARED(double, scratch, 32);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += 1024) sum += partial[i];
  sum = blockSum(sum, scratch);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

// Moves each tensor in and out once. Bound: memory.
__global__ void __launch_bounds__(threads) scaleKernel(ScaleArguments a, Batch batch) {
  const float factor = *a.factor;
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    put(VectorOut{t.scaled, a.update.gradientType}, i, gradientOf(t, a.update.gradientType, i) * factor);
  });
}

// Moves two tensors in, one out, once each. Bound: memory.
__global__ void __launch_bounds__(threads) lerpKernel(LerpArguments a, Batch batch) {
  const float weight = *a.weight;
  overChunk(batch, [&](const UpdateTensor& t, int64_t i) {
    const float x = t.parameter[i];
    t.newParameter[i] = x + weight * (gradientOf(t, a.update.gradientType, i) - x);
  });
}

Shape3 shapeOf(const char* name, const UpdateArguments& a, int64_t tensors) {
  const int64_t chunks = chunksOf(a.longest);
  const int64_t y = std::min<int64_t>(chunks, 65535);
  return {dim3(blocks(name, tensors), blocks(name, y, 65535), blocks(name, divideUp(chunks, y), 65535)), dim3(threads)};
}

// Calls use(shape, batch, its first tensor) for as many tensors at a time as one launch takes.
template <typename Use>
void inBatches(const char* name, const UpdateArguments& a, Use use) {
  for (int64_t first = 0; first < a.tensorCount; first += Batch::most) {
    const int64_t count = std::min(Batch::most, a.tensorCount - first);
    Batch batch{};
    std::copy_n(a.tensors + first, count, batch.tensors);
    use(shapeOf(name, a, count), batch, first);
  }
}

int64_t partials(int64_t tensorCount, int64_t longest) {
  const int64_t chunks = chunksOf(longest);
  const int64_t y = std::min<int64_t>(chunks, 65535);
  return tensorCount * y * divideUp(chunks, y);
}

}  // namespace

void launchSgd(Stream stream, const SgdArguments& a) {
  inBatches("sgd", a.update, [&](const Shape3& shape, const Batch& batch, int64_t) {
    launch("sgd", stream, shape, sgdKernel, a, batch);
  });
}

void launchAdamw(Stream stream, const AdamwArguments& a) {
  inBatches("adamw", a.update, [&](const Shape3& shape, const Batch& batch, int64_t) {
    launch("adamw", stream, shape, adamwKernel, a, batch);
  });
}

void launchFoundInf(Stream stream, const FoundInfArguments& a) {
  launch("found_inf", stream, {dim3(1), dim3(1)}, zeroKernel, a.found);
  inBatches("found_inf", a.update, [&](const Shape3& shape, const Batch& batch, int64_t) {
    launch("found_inf", stream, shape, foundInfKernel, batch, a.update.gradientType, a.found);
  });
}

size_t globalNormWorkspace(int64_t tensorCount, int64_t longest) {
  return static_cast<size_t>(partials(tensorCount, longest)) * sizeof(double);
}

void launchGlobalNorm(Stream stream, const GlobalNormArguments& a) {
  const UpdateArguments& u = a.update;
  const int64_t each = partials(1, u.longest);
  inBatches("global_norm", u, [&](const Shape3& shape, const Batch& batch, int64_t first) {
    launch("global_norm", stream, shape, squaresKernel, batch, u.gradientType,
           static_cast<double*>(a.workspace) + first * each);
  });
  launch("global_norm", stream, {dim3(1), dim3(1024)}, normKernel, static_cast<const double*>(a.workspace),
         u.tensorCount > 0 ? partials(u.tensorCount, u.longest) : 0, a.norm);
}

void launchScale(Stream stream, const ScaleArguments& a) {
  inBatches("scale", a.update, [&](const Shape3& shape, const Batch& batch, int64_t) {
    launch("scale", stream, shape, scaleKernel, a, batch);
  });
}

void launchLerp(Stream stream, const LerpArguments& a) {
  inBatches("lerp", a.update, [&](const Shape3& shape, const Batch& batch, int64_t) {
    launch("lerp", stream, shape, lerpKernel, a, batch);
  });
}

}  // namespace seresnet::cuda
