#include "batch_norm_act.h"

#include "channelwise.h"

namespace seresnet::cuda {

namespace {

constexpr int threads = 256;

// Parts in which the rows are cut for sums over them, at most; the workspace holds as many.
int64_t mostParts(int64_t channels) { return std::clamp<int64_t>(65536 / std::max<int64_t>(channels, 1), 32, 512); }

struct Split {
  Tile tile;
  int64_t across, parts, chunk;  // chunk: rows a part

  static Split of(int64_t rows, int64_t channels, int lanes) {
    const Tile tile = Tile::of(channels, lanes, threads);
    const int64_t across = tile.across(channels, lanes);
    const int64_t wanted = std::min(partsOf(across, rows, tile, 64), mostParts(channels));
    const int64_t chunk = divideUp(rows, wanted);
    return {tile, across, divideUp(rows, chunk), chunk};
  }
};

// Count, mean and sum of squared differences from it (Chan, Golub & LeVeque 1983).
template <typename T>
struct Moments {
  T count = 0, mean = 0, squares = 0;

  __device__ __forceinline__ void merge(const Moments& other) {
    if (other.count == 0) return;
    const T total = count + other.count;
    const T difference = other.mean - mean;
    mean += difference * (other.count / total);
    squares += other.squares + difference * difference * (count * other.count / total);
    count = total;
  }
};

// Welford's recurrence down a thread's rows, then the threads of a column merged in a tree. One pass, over differences from
// the first row's values, so that it is right where the mean is large beside the spread. pivot [channel]: those values;
// partial: [part, {mean, squares}, channel].
// Moves x once, and 2 floats a channel for each part of the rows. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    momentsKernel(const T* x, float* pivot, float* partial, int64_t rows, int64_t channels, Tile tile, int64_t chunk) {
  SHARED(float, scratch, threads * 2 * N);
  SHARED(float, counts, threads);
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread % tile.columns;
  const int64_t channel = (int64_t{blockIdx.y} * tile.columns + column) * N;
  const bool inside = channel < channels;
  const int64_t end = min(rows, (int64_t{blockIdx.x} + 1) * chunk);
  float first[N] = {}, mean[N] = {}, squares[N] = {};
  if (inside) loadLanes(x + channel, first);
  float count = 0;
  for (int64_t row = int64_t{blockIdx.x} * chunk + thread / tile.columns; inside && row < end; row += tile.rows) {
    float value[N];
    loadLanes(x + row * channels + channel, value);
    count += 1;
    const float weight = 1.F / count;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float shifted = value[i] - first[i];
      const float difference = shifted - mean[i];
      mean[i] += difference * weight;
      squares[i] += difference * (shifted - mean[i]);
    }
  }
  for (int half = tile.rows / 2; half > 0; half /= 2) {
    const int row = thread / tile.columns;
    if (row >= half && row < 2 * half) {
      counts[thread] = count;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        scratch[2 * i * threads + thread] = mean[i];
        scratch[(2 * i + 1) * threads + thread] = squares[i];
      }
    }
    __syncthreads();
    if (row < half) {
      const int other = thread + half * tile.columns;
      const float more = counts[other];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        Moments<float> mine{count, mean[i], squares[i]};
        mine.merge({more, scratch[2 * i * threads + other], scratch[(2 * i + 1) * threads + other]});
        mean[i] = mine.mean;
        squares[i] = mine.squares;
      }
      count += more;
    }
    __syncthreads();
  }
  if (thread >= tile.columns || !inside) return;
  float* to = partial + int64_t{blockIdx.x} * 2 * channels + channel;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = mean[i];
    to[channels + i] = squares[i];
    if (blockIdx.x == 0) pivot[channel + i] = first[i];
  }
}

// A block finishes 32 channels: 32 threads take a channel's parts in turn. total: [{mean, variance, what rounding
// the mean left out}, channel]; in place of the means are the pivots before.
// Moves the partial results, 2 floats a channel and part; 5 floats a channel. Bound: latency.
__global__ void __launch_bounds__(1024)
    finishMomentsKernel(const float* partial, float* total, int64_t rows, int64_t channels, int64_t parts, int64_t chunk,
                        VectorOut mean, VectorOut variance) {
  SHARED(double, scratch, 2 * 1024);
  SHARED(double, counts, 1024);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t channel = int64_t{blockIdx.x} * 32 + thread % 32;
  Moments<double> mine;
  for (int64_t part = thread / 32; channel < channels && part < parts; part += 32) {
    const float* from = partial + part * 2 * channels + channel;
    mine.merge({static_cast<double>(min(chunk, rows - part * chunk)), from[0], from[channels]});
  }
  for (int half = 512; half >= 32; half /= 2) {
    if (thread >= half && thread < 2 * half) {
      counts[thread] = mine.count;
      scratch[thread] = mine.mean;
      scratch[1024 + thread] = mine.squares;
    }
    __syncthreads();
    if (thread < half) mine.merge({counts[thread + half], scratch[thread + half], scratch[1024 + thread + half]});
    __syncthreads();
  }
  if (thread >= 32 || channel >= channels) return;
  const double biased = mine.squares / mine.count;
  mine.mean += total[channel];
  total[channel] = static_cast<float>(mine.mean);
  total[channels + channel] = static_cast<float>(biased);
  total[2 * channels + channel] = static_cast<float>(mine.mean - total[channel]);
  put(mean, channel, static_cast<float>(mine.mean));
  put(variance, channel, static_cast<float>(biased));
}

// Moves 6 numbers a channel. Bound: latency.
__global__ void __launch_bounds__(threads) runningStatisticsKernel(RunningStatisticsArguments a) {
  const int64_t channel = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (channel >= a.channels) return;
  const double momentum = *a.momentum;
  const auto follow = [&](const Vector& running, double batch, const VectorOut& updated) {
    put(updated, channel, static_cast<float>((1 - momentum) * at(running, channel, 0.F) + momentum * batch));
  };
  follow(a.mean, at(a.batchMean, channel, 0.F), a.newMean);
  follow(a.variance, at(a.batchVariance, channel, 0.F) * (a.count / (a.count - 1)), a.newVariance);
}

struct Normalise {
  Vector mean, variance, gamma, beta;
  float eps;
  Vector rest = {};  // of the mean, past its rounding

  template <int N>
  __device__ __forceinline__ void operator()(int64_t, int64_t channel, Affine<N>& affine) const {
    float spread[N], lost[N];
    at(mean, channel, 0.F, affine.center);
    at(variance, channel, 1.F, spread);
    at(gamma, channel, 1.F, affine.scale);
    at(beta, channel, 0.F, affine.shift);
    at(rest, channel, 0.F, lost);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      affine.scale[i] /= sqrtf(spread[i] + eps);
      affine.shift[i] -= lost[i] * affine.scale[i];
    }
  }
};

struct GradientSource {
  const void* x;
  const void* dy;
  const void* activated;
};

// Sums of g and g * (x - mean) over a part's rows: partial [part, {sum, product}, channel]. Masked gradients are kept in
// `masked`, where there is one.
// Moves x, dy and, where it is given, what the ReLU made of them once; what is masked is written once. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    gradientSumsKernel(GradientSource source, T* masked, Vector mean, float* partial, int64_t rows, int64_t channels,
                       Tile tile, int64_t chunk) {
  SHARED(float, scratch, threads * N);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t channel = (int64_t{blockIdx.y} * tile.columns + thread % tile.columns) * N;
  const bool inside = channel < channels;
  const int64_t end = min(rows, (int64_t{blockIdx.x} + 1) * chunk);
  const T* x = static_cast<const T*>(source.x);
  const T* dy = static_cast<const T*>(source.dy);
  const T* activated = static_cast<const T*>(source.activated);
  float center[N] = {}, sum[N] = {}, product[N] = {};
  if (inside) at(mean, channel, 0.F, center);
  for (int64_t row = int64_t{blockIdx.x} * chunk + thread / tile.columns; inside && row < end; row += tile.rows) {
    const int64_t place = row * channels + channel;
    float value[N], gradient[N];
    loadLanes(x + place, value);
    loadLanes(dy + place, gradient);
    if (activated != nullptr) {
      float y[N];
      loadLanes(activated + place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) gradient[i] = reluGradientOf(y[i], gradient[i]);
    }
    if (masked != nullptr) storeLanes(gradient, masked + place);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] += gradient[i];
      product[i] += gradient[i] * (value[i] - center[i]);
    }
  }
  sumRows(sum, tile, scratch);
  sumRows(product, tile, scratch);
  if (thread >= tile.columns || !inside) return;
  float* to = partial + int64_t{blockIdx.x} * 2 * channels + channel;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = sum[i];
    to[channels + i] = product[i];
  }
}

// coefficients: [{scale, mean's part, variance's part}, channel]
// Moves the partial sums, 2 floats a channel and part; 7 numbers a channel. Bound: latency.
__global__ void __launch_bounds__(1024)
    finishGradientKernel(const float* partial, float* coefficients, int64_t rows, int64_t channels, int64_t parts,
                         Vector variance, Vector gamma, VectorOut dgamma, VectorOut dbeta, float eps, bool training) {
  SHARED(double, scratch, 2 * 1024);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t channel = int64_t{blockIdx.x} * 32 + thread % 32;
  double sum = 0, product = 0;
  for (int64_t part = thread / 32; channel < channels && part < parts; part += 32) {
    sum += partial[part * 2 * channels + channel];
    product += partial[part * 2 * channels + channels + channel];
  }
  for (int half = 512; half >= 32; half /= 2) {
    if (thread >= half && thread < 2 * half) {
      scratch[thread] = sum;
      scratch[1024 + thread] = product;
    }
    __syncthreads();
    if (thread < half) {
      sum += scratch[thread + half];
      product += scratch[1024 + thread + half];
    }
    __syncthreads();
  }
  if (thread >= 32 || channel >= channels) return;
  const double inverse = 1 / sqrt(static_cast<double>(at(variance, channel, 1.F)) + eps);
  product *= inverse;
  put(dgamma, channel, static_cast<float>(product));
  put(dbeta, channel, static_cast<float>(sum));
  const double count = static_cast<double>(rows);
  coefficients[channel] = static_cast<float>(at(gamma, channel, 1.F) * inverse);
  coefficients[channels + channel] = training ? static_cast<float>(sum / count) : 0.F;
  coefficients[2 * channels + channel] = training ? static_cast<float>(product / count * inverse) : 0.F;
}

// dx = scale * (g - meanPart - (x - mean) * variancePart)
// Moves x and dy once more, with the activated unless what it masked was kept; dx once. Bound: memory.
template <typename T, int N>
__global__ void __launch_bounds__(threads)
    gradientKernel(GradientSource source, T* dx, Vector mean, const float* coefficients, int64_t rows, int64_t channels,
                   Tile tile) {
  const int64_t channel = (int64_t{blockIdx.y} * tile.columns + static_cast<int>(threadIdx.x) % tile.columns) * N;
  if (channel >= channels) return;
  const T* x = static_cast<const T*>(source.x);
  const T* dy = static_cast<const T*>(source.dy);
  const T* activated = static_cast<const T*>(source.activated);
  float center[N], scale[N], meanPart[N], variancePart[N];
  at(mean, channel, 0.F, center);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    scale[i] = coefficients[channel + i];
    meanPart[i] = coefficients[channels + channel + i];
    variancePart[i] = coefficients[2 * channels + channel + i];
  }
  for (int64_t row = int64_t{blockIdx.x} * tile.rows + threadIdx.x / tile.columns; row < rows;
       row += int64_t{gridDim.x} * tile.rows) {
    const int64_t place = row * channels + channel;
    float value[N], gradient[N];
    loadLanes(x + place, value);
    loadLanes(dy + place, gradient);
    if (activated != nullptr) {
      float y[N];
      loadLanes(activated + place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) gradient[i] = reluGradientOf(y[i], gradient[i]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
      value[i] = scale[i] * (gradient[i] - meanPart[i] - (value[i] - center[i]) * variancePart[i]);
    storeLanes(value, dx + place);
  }
}

// A warp folds one output's weights.
// Moves the weight in and out once, 7 numbers an output. Bound: memory.
template <typename T>
__global__ void __launch_bounds__(threads) foldKernel(FoldBatchNormArguments a) {
  const int64_t output = int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32;
  if (output >= a.outputs) return;
  const double inverse = 1 / sqrt(static_cast<double>(at(a.variance, output, 1.F)) + a.eps);
  const double scale = at(a.gamma, output, 1.F) * inverse;
  const T* from = static_cast<const T*>(a.weight) + output * a.fan;
  T* to = static_cast<T*>(a.newWeight) + output * a.fan;
  for (int64_t i = threadIdx.x % 32; i < a.fan; i += 32) to[i] = fromFloat<T>(static_cast<float>(toFloat(from[i]) * scale));
  if (threadIdx.x % 32 == 0)
    put(a.newBias, output, static_cast<float>((static_cast<double>(at(a.bias, output, 0.F)) - at(a.mean, output, 0.F)) * scale +
                                              at(a.beta, output, 0.F)));
}

}  // namespace

size_t batchNormWorkspace(int64_t, int64_t channels) {
  return static_cast<size_t>((mostParts(channels) * 2 + 3) * channels) * sizeof(float);
}

void launchBatchNorm(Stream stream, const BatchNormArguments& a) {
  withFloat("batch_norm", a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launchChannelwise<T>("batch_norm", stream, a.x, a.residual, a.y, 1, a.rows, a.channels, a.relu,
                         Normalise{a.mean, a.variance, a.gamma, a.beta, static_cast<float>(a.eps)});
  });
}

void launchBatchNormTrain(Stream stream, const BatchNormTrainArguments& a) {
  const char* name = "batch_norm_train";
  if (a.rows * a.channels == 0) return;
  auto* partial = static_cast<float*>(a.workspace);
  float* total = partial + mostParts(a.channels) * 2 * a.channels;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Split split = Split::of(a.rows, a.channels, N);
      launch(name, stream, {dim3(blocks(name, split.parts), blocks(name, split.across, 65535)), dim3(threads)},
             momentsKernel<T, N>, static_cast<const T*>(a.x), total, partial, a.rows, a.channels, split.tile, split.chunk);
      launch(name, stream, {dim3(blocks(name, divideUp(a.channels, 32))), dim3(1024)}, finishMomentsKernel, partial, total,
             a.rows, a.channels, split.parts, split.chunk, a.mean, a.variance);
    };
    withLanes<T>(a.channels, with, a.x);
    launchChannelwise<T>(name, stream, a.x, a.residual, a.y, 1, a.rows, a.channels, a.relu,
                         Normalise{{total}, {total + a.channels}, a.gamma, a.beta, static_cast<float>(a.eps), {total + 2 * a.channels}});
  });
}

void launchRunningStatistics(Stream stream, const RunningStatisticsArguments& a) {
  if (a.channels == 0) return;
  launch("running_statistics", stream, {dim3(blocks("running_statistics", divideUp(a.channels, threads))), dim3(threads)},
         runningStatisticsKernel, a);
}

void launchBatchNormGradient(Stream stream, const BatchNormGradientArguments& a) {
  const char* name = "batch_norm_gradient";
  if (a.rows * a.channels == 0) return;
  auto* partial = static_cast<float*>(a.workspace);
  float* coefficients = partial + mostParts(a.channels) * 2 * a.channels;
  withFloat(name, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto with = [&](auto lanes) {
      constexpr int N = decltype(lanes)::value;
      const Split split = Split::of(a.rows, a.channels, N);
      const dim3 grid(blocks(name, split.parts), blocks(name, split.across, 65535));
      launch(name, stream, {grid, dim3(threads)}, gradientSumsKernel<T, N>, GradientSource{a.x, a.dy, a.activated},
             static_cast<T*>(a.residual), a.mean, partial, a.rows, a.channels, split.tile, split.chunk);
      launch(name, stream, {dim3(blocks(name, divideUp(a.channels, 32))), dim3(1024)}, finishGradientKernel, partial,
             coefficients, a.rows, a.channels, split.parts, a.variance, a.gamma, a.dgamma, a.dbeta, a.eps, a.training);
      // the first pass left the masked gradient, where somebody wants it
      const GradientSource source = a.residual == nullptr ? GradientSource{a.x, a.dy, a.activated}
                                                          : GradientSource{a.x, a.residual, nullptr};
      const int64_t parts = partsOf(split.across, a.rows, split.tile, 8);
      launch(name, stream, {dim3(blocks(name, parts), blocks(name, split.across, 65535)), dim3(threads)},
             gradientKernel<T, N>, source, static_cast<T*>(a.dx), a.mean, coefficients, a.rows, a.channels, split.tile);
    };
    withLanes<T>(a.channels, with, a.x, a.dy, a.activated, a.dx, a.residual);
  });
}

void launchFoldBatchNorm(Stream stream, const FoldBatchNormArguments& a) {
  if (a.outputs == 0) return;
  withFloat("fold_batch_norm", a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launch("fold_batch_norm", stream,
           {dim3(blocks("fold_batch_norm", divideUp(a.outputs, threads / 32))), dim3(threads)}, foldKernel<T>, a);
  });
}

}  // namespace seresnet::cuda
