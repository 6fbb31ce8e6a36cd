#include "squeeze_excite.h"

#include "bias_act.h"
#include "channelwise.h"
#include "global_pool.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 512;

// The blocks that work on one image: a cluster, or one block alone. They see each other's shared memory.
struct Team {
  unsigned rank, size;

  __device__ __forceinline__ static Team mine([[maybe_unused]] unsigned size) {
#if HAS_CLUSTERS
    if (size > 1) return {cooperative_groups::this_cluster().block_rank(), size};
#endif
    return {0, 1};
  }
  __device__ __forceinline__ void sync() const {
#if HAS_CLUSTERS
    if (size > 1) {
      cooperative_groups::this_cluster().sync();
      return;
    }
#endif
    __syncthreads();
  }
  __device__ __forceinline__ const float* shared(float* mine, [[maybe_unused]] unsigned of) const {
#if HAS_CLUSTERS
    if (size > 1) return cooperative_groups::this_cluster().map_shared_rank(mine, of);
#endif
    return mine;
  }
};

// The fully connected layers; vectors carry a dtype of their own.
struct Layers {
  const void* w1;
  const void* w2;
  Vector b1, b2;
  int hidden;
};

// N products of a row of weights with a vector in shared memory, summed over a warp.
template <typename T, int N>
__device__ __forceinline__ float dot(const T* weight, const float* vector, int count) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % 32 * N; i < count; i += 32 * N) {
    float value[N];
    loadLanes(weight + i, value);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += value[k] * vector[i + k];
  }
  return warpSum(sum);
}

// One layer shared by the team: block r of s computes outputs r, r + s, … (a warp each) into its own `out`; after the sync
// everybody collects all of them in `all`.
template <typename T, int N, typename Finish>
__device__ __forceinline__ void layer(const Team& team, const T* weight, const float* vector, int depth, int outputs,
                                      float* out, float* all, Finish finish) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int share = static_cast<int>(team.size);
  for (int o = warp; o * share + static_cast<int>(team.rank) < outputs; o += warps) {
    const int output = o * share + static_cast<int>(team.rank);
    const float sum = dot<T, N>(weight + int64_t{output} * depth, vector, depth);
    if (threadIdx.x % 32 == 0) out[o] = finish(sum, output);
  }
  team.sync();
  for (int i = static_cast<int>(threadIdx.x); i < outputs; i += static_cast<int>(blockDim.x))
    all[i] = team.shared(out, static_cast<unsigned>(i % share))[i / share];
  __syncthreads();
}

// gate = sigmoid(W2 relu(W1 pooled + b1) + b2); pooled [depth], gate [channels] and the rest in shared memory. `out1` and
// `out2` hold a block's share of each layer and must not be written again before the team's next sync.
template <typename T, int N1, int N2>
__device__ __forceinline__ void excite(const Team& team, const Layers& layers, const float* pooled, int depth,
                                       int channels, float* out1, float* hidden, float* out2, float* gate) {
  layer<T, N1>(team, static_cast<const T*>(layers.w1), pooled, depth, layers.hidden, out1, hidden,
               [&](float sum, int o) { return reluOf(sum + at(layers.b1, o, 0.F)); });
  layer<T, N2>(team, static_cast<const T*>(layers.w2), hidden, layers.hidden, channels, out2, gate,
               [&](float sum, int o) { return sigmoidOf(sum + at(layers.b2, o, 0.F)); });
}

// Floats of shared memory that the excitation takes: pooled, hidden, both shares, gate.
int64_t exciteFloats(int64_t depth, int64_t hidden, int64_t channels, int64_t team) {
  return depth + hidden + divideUp(hidden, team) + divideUp(channels, team) + channels;
}

// One block a processor is enough, a batch has few more; left to itself the compiler spills to fit three.
// Moves the weights once an image, all but the first time from L2; pooled and gate once. Bound: L2, and latency at batch 1.
template <typename T, int N1, int N2>
__global__ void __launch_bounds__(threads, 1)
    exciteKernel(const T* pooled, T* gate, Layers layers, int depth, int channels, unsigned size) {
  DYNAMIC_SHARED(float, memory);
  const Team team = Team::mine(size);
  const int64_t image = blockIdx.x / size;
  float* squeezed = memory;
  float* hidden = squeezed + depth;
  float* gates = hidden + layers.hidden;
  float* out1 = gates + channels;
  float* out2 = out1 + (layers.hidden + size - 1) / size;
  for (int i = static_cast<int>(threadIdx.x); i < depth; i += threads) squeezed[i] = toFloat(pooled[image * depth + i]);
  __syncthreads();
  excite<T, N1, N2>(team, layers, squeezed, depth, channels, out1, hidden, out2, gates);
  for (int i = static_cast<int>(threadIdx.x * size + team.rank); i < channels; i += static_cast<int>(threads * size))
    gate[image * channels + i] = fromFloat<T>(gates[i]);
  team.sync();  // nobody leaves while its shared memory is read
}

// A team per image, each block with its share of the pixels, which stays in shared memory between pooling and scaling:
// x is read once. Shared memory: sums and scratch as floats, then the pixels.
// Moves x, where it is given the residual, and y once; the weights as exciteKernel. Bound: memory.
template <typename T, int N, int NHidden>
__global__ void __launch_bounds__(threads)
    squeezeExciteKernel(const T* x, const T* residual, T* y, Layers layers, int plane, int channels, int share,
                        int64_t floats, bool relu, unsigned size) {
  DYNAMIC_SHARED(float, memory);
  const Team team = Team::mine(size);
  const int64_t image = blockIdx.x / size;
  const int first = static_cast<int>(team.rank) * share;
  const int pixels = max(0, min(share, plane - first));
  float* pooled = memory;
  float* hidden = pooled + channels;
  float* gate = hidden + layers.hidden;
  float* out1 = gate + channels;
  float* out2 = out1 + (layers.hidden + size - 1) / size;
  float* sums = out2 + (channels + size - 1) / size;  // of this block's pixels
  float* rows = sums + channels;                      // of each row of threads: [threads / columns][channels] at most
  T* kept = reinterpret_cast<T*>(memory + floats);

  const int64_t start = (image * plane + first) * channels;
  const int columns = channels / N;
  const int thread = static_cast<int>(threadIdx.x);
  // Threads side by side take neighbouring lanes of channels; what is left over of the block are further rows.
  const int lines = max(1, threads / columns);
  for (int column = thread % min(columns, threads); column < columns; column += threads) {
    const int line = thread / columns;
    if (line >= lines) break;
    float sum[N] = {};
#pragma unroll 4
    for (int pixel = line; pixel < pixels; pixel += lines) {
      const int64_t at = int64_t{pixel} * channels + column * N;
      const Lanes<T, N> lanes = *reinterpret_cast<const Lanes<T, N>*>(x + start + at);
      *reinterpret_cast<Lanes<T, N>*>(kept + at) = lanes;
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += toFloat(lanes.value[i]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) rows[line * channels + column * N + i] = sum[i];
  }
  __syncthreads();
  for (int c = thread; c < channels; c += threads) {
    float sum = 0;
    for (int line = 0; line < lines; ++line) sum += rows[line * channels + c];
    sums[c] = sum;
  }
  team.sync();
  for (int c = thread; c < channels; c += threads) {
    float sum = 0;
    for (unsigned rank = 0; rank < team.size; ++rank) sum += team.shared(sums, rank)[c];
    pooled[c] = sum / static_cast<float>(plane);
  }
  __syncthreads();
  excite<T, N, NHidden>(team, layers, pooled, channels, channels, out1, hidden, out2, gate);
  for (int i = thread; i < pixels * columns; i += threads) {
    const int c = i % columns * N;
    float value[N];
    loadLanes(kept + int64_t{i} * N, value);
#pragma unroll
    for (int k = 0; k < N; ++k) value[k] *= gate[c + k];
    if (residual != nullptr) {
      float other[N];
      loadLanes(residual + start + int64_t{i} * N, other);
#pragma unroll
      for (int k = 0; k < N; ++k) value[k] += other[k];
    }
    if (relu)
#pragma unroll
      for (int k = 0; k < N; ++k) value[k] = reluOf(value[k]);
    storeLanes(value, y + start + int64_t{i} * N);
  }
  team.sync();
}

// How one pass is laid out: the smallest cluster whose blocks take at most half a multiprocessor's shared memory, so that
// one block moves data while another waits; else the smallest that fits at all; else none.
struct OnePass {
  unsigned size = 0;
  int share = 0;  // pixels a block
  int64_t floats = 0;
  int64_t bytes = 0;
};

OnePass onePass(const Images& images, int64_t hidden, int lanes, int64_t elementBytes) {
  const Limits limit = limits();
  if (images.plane() * images.channels > 0x7fffffff) return {};
  const int64_t lines = std::max<int64_t>(1, threads / (images.channels / lanes));
  OnePass found;
  for (unsigned size = 1; size <= (limit.capability >= 90 ? 8U : 1U); size *= 2) {
    const int64_t share = divideUp(images.plane(), size);
    int64_t floats = exciteFloats(images.channels, hidden, images.channels, size) + (1 + lines) * images.channels;
    floats = divideUp(floats, 4) * 4;  // the pixels start on 16 bytes
    const int64_t bytes = floats * int64_t{sizeof(float)} + share * images.channels * elementBytes;
    if (bytes > limit.sharedPerBlock) continue;
    if (found.size == 0 || bytes + limit.reservedPerBlock <= limit.sharedPerProcessor / 2)
      found = {size, static_cast<int>(share), floats, bytes};
    if (bytes + limit.reservedPerBlock <= limit.sharedPerProcessor / 2) break;
  }
  return found;
}

}  // namespace

void launchExcite(Stream stream, const ExciteArguments& a) {
  const char* name = "excite";
  if (a.images * a.channels == 0) return;
  // few images: more blocks share each one's weights
  const Limits limit = limits();
  unsigned size = 1;
  while (limit.capability >= 90 && size < 8 && a.images * size * 2 <= limit.processors) size *= 2;
  const int64_t bytes = exciteFloats(a.depth, a.hidden, a.channels, size) * int64_t{sizeof(float)};
  if (bytes > limit.sharedPerBlock)
    throw Error(name, "expected at most " + std::to_string(limit.sharedPerBlock) + " bytes of vectors, got " +
                          std::to_string(bytes));
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto start = [&](auto kernel) {
      launch(name, stream, {dim3(blocks(name, a.images * size)), dim3(threads), static_cast<size_t>(bytes), size}, kernel,
             static_cast<const T*>(a.pooled), static_cast<T*>(a.gate),
             Layers{a.w1, a.w2, a.b1, a.b2, static_cast<int>(a.hidden)}, static_cast<int>(a.depth),
             static_cast<int>(a.channels), size);
    };
    const bool wide1 = a.depth % wide<T> == 0 && aligned(a.w1), wide2 = a.hidden % wide<T> == 0 && aligned(a.w2);
    if (wide1 && wide2) start(exciteKernel<T, wide<T>, wide<T>>);
    else if (wide1) start(exciteKernel<T, wide<T>, 1>);
    else start(exciteKernel<T, 1, 1>);
  });
}

size_t squeezeExciteWorkspace(const Images& images, DType) {
  // pooled and gate, should there be three kernels; each on 16 bytes
  return 2 * static_cast<size_t>(divideUp(images.batch * images.channels * int64_t{sizeof(float)}, 16) * 16);
}

void launchSqueezeExcite(Stream stream, const SqueezeExciteArguments& a) {
  const char* name = "squeeze_excite";
  const int64_t channels = a.images.channels;
  if (a.images.size() == 0) return;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const OnePass pass = onePass(a.images, a.hidden, N, sizeof(T));
      if (pass.size == 0) {
        const size_t half = squeezeExciteWorkspace(a.images, a.dtype) / 2;
        void* gate = static_cast<char*>(a.workspace) + half;
        launchGlobalPool(stream, {a.x, a.workspace, a.dtype, a.images});
        launchExcite(stream, {a.workspace, gate, a.dtype, a.images.batch, channels, a.hidden, channels, a.w1, a.w2, a.b1, a.b2});
        launchBiasAct(stream, {a.x, gate, a.residual, a.y, a.dtype, a.images.batch, a.images.plane(), channels, {}, a.relu});
        return;
      }
      const auto start = [&](auto kernel) {
        launch(name, stream,
               {dim3(blocks(name, a.images.batch * pass.size)), dim3(threads), static_cast<size_t>(pass.bytes), pass.size},
               kernel, static_cast<const T*>(a.x), static_cast<const T*>(a.residual), static_cast<T*>(a.y),
               Layers{a.w1, a.w2, a.b1, a.b2, static_cast<int>(a.hidden)}, static_cast<int>(a.images.plane()),
               static_cast<int>(channels), pass.share, pass.floats, a.relu, pass.size);
      };
      if (a.hidden % wide<T> == 0 && aligned(a.w2)) start(squeezeExciteKernel<T, N, wide<T>>);
      else start(squeezeExciteKernel<T, N, 1>);
    };
    withLanes<T>(channels, with, a.x, a.residual, a.y, a.w1);
  });
}

}  // namespace seresnet::cuda
