#include <cstdio>

#include "check.h"
#include "cuda/kernels/launch.h"

// Tests of the harness: kernels that are wrong, each in its own way, which the harness must stop with a report; and right
// ones that use what it offers. Run one by one: simt fault NAME.
namespace test {

using namespace seresnet::cuda;

namespace {

struct Case {
  const char* name;
  void (*run)();
};

__global__ void scale(float* x, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= count) x[i] = 2;  // one too far
}

__global__ void readPast(const float* x, float* y, int count) { y[0] = x[count]; }

__global__ void sharedPast(float* y) {
  DYNAMIC_SHARED(float, memory);
  memory[threadIdx.x + 1] = 1;
  __syncthreads();
  y[threadIdx.x] = memory[threadIdx.x];
}

__global__ void staticPast(float* y) {
  SHARED(float, memory, 63);
  memory[threadIdx.x] = 1;
  y[threadIdx.x] = 1;
}

// Threads read what their neighbours wrote.
__global__ void reverse(float* x, bool barrier) {
  SHARED(float, memory, 64);
  memory[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  x[threadIdx.x] = memory[63 - threadIdx.x];
}

__global__ void divergentShuffle(float* x) {
  if (threadIdx.x % 2 == 0) x[threadIdx.x] = __shfl_xor_sync(0xffffffffU, x[threadIdx.x], 1);
  else __syncthreads();
}

__global__ void crossedShuffles(float* x) {
  const float mine = x[threadIdx.x];
  if (threadIdx.x < 16) x[threadIdx.x] = __shfl_xor_sync(0xffffffffU, mine, 1);
  else
    x[threadIdx.x] = __shfl_down_sync(0xffffffffU, mine, 1);
}

// Right as long as threads run in ascending order.
__global__ void onwards(float* x) {
  SHARED(float, memory, 64);
  memory[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = threadIdx.x == 0 ? 0 : memory[threadIdx.x - 1];
}

__global__ void shuffleAfterExit(float* x) {
  if (threadIdx.x == 5) return;
  x[threadIdx.x] = __shfl_down_sync(0xffffffffU, x[threadIdx.x], 1);
}

__global__ void shuffleOutsideMask(float* x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0x0000ffffU, x[threadIdx.x], 20);
}

__global__ void divergentBarrier(float* x) {
  if (threadIdx.x < 40) return;
  __syncthreads();
  x[threadIdx.x] = 1;
}

__global__ void twoBarriers(float* x) {
  if (threadIdx.x < 32) __syncthreads();
  else
    __syncthreads();
  x[threadIdx.x] = 1;
}

// The neighbour block may be gone when its shared memory is read.
__global__ void clusterWithoutSync(float* x) {
  SHARED(float, memory, 1);
  memory[0] = static_cast<float>(blockIdx.x);
  auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  x[blockIdx.x] = *cluster.map_shared_rank(memory, 1 - cluster.block_rank());
}

template <typename Kernel, typename... Arguments>
void start(Kernel kernel, unsigned threads, size_t shared, Arguments... arguments) {
  launch("planted", nullptr, {dim3(1), dim3(threads), shared}, kernel, arguments...);
}

Array ramp() {
  Values values;
  for (int i = 0; i < 64; ++i) values.push_back(i);
  return Array(DType::float32, values);
}

// Whether any order gives other numbers than the ascending one: what a test of a kernel does.
void reversed(bool barrier) {
  for (uint64_t order = 0; order < 5; ++order) {
    simt::setOrder(order);
    const Array x = ramp();
    start(reverse, 64, 0, x.as<float>(), barrier);
    for (int i = 0; i < 64; ++i)
      if (x[i] != 63 - i) simt::fail("element %d is %g", i, x[i]);
  }
}

__global__ void everything(float* x, uint32_t* votes, uint32_t* sum) {
  SHARED(float, memory, 32);
  const auto cluster = cooperative_groups::this_cluster();
  const auto lane = static_cast<int>(threadIdx.x);
  const float mine = static_cast<float>(lane);
  x[0 * 32 + lane] = __shfl_sync(0xffffffffU, mine, 3);
  x[1 * 32 + lane] = __shfl_up_sync(0xffffffffU, mine, 2, 8);
  x[2 * 32 + lane] = __shfl_down_sync(0xffffffffU, mine, 2, 8);
  x[3 * 32 + lane] = __shfl_xor_sync(0xffffffffU, mine, 5);
  if (lane < 7) votes[0] = __ballot_sync(0x7fU, lane % 3 == 0);
  votes[1] = static_cast<uint32_t>(__any_sync(0xffffffffU, lane == 9));
  votes[2] = static_cast<uint32_t>(__all_sync(0xffffffffU, lane < 31));
  atomicAdd(sum, 1U);
  memory[lane] = mine + 100 * static_cast<float>(cluster.block_rank());
  cluster.sync();
  const unsigned other = (cluster.block_rank() + 1) % cluster.num_blocks();
  x[(4 + cluster.block_rank()) * 32 + threadIdx.x] = *cluster.map_shared_rank(memory + lane, other);
  cluster.sync();
}

void offered() {
  for (uint64_t order = 0; order < 5; ++order) {
    simt::setOrder(order);
    const Array x(DType::float32, 6 * 32), votes(DType::int32, 3), sum(DType::int32, Values{0});
    launch("everything", nullptr, {dim3(2), dim3(32), 0, 2}, everything, x.as<float>(), votes.as<uint32_t>(), sum.as<uint32_t>());
    bool right = votes[0] == 0b1001001 && votes[1] == 1 && votes[2] == 0 && sum[0] == 64;
    for (int i = 0; i < 32; ++i)
      right = right && x[i] == 3 && x[32 + i] == (i % 8 < 2 ? i : i - 2) && x[64 + i] == (i % 8 > 5 ? i : i + 2) &&
              x[96 + i] == (i ^ 5) && x[128 + i] == i + 100 && x[160 + i] == i;
    if (!right) simt::fail("a warp or cluster operation gave something else");
  }
  std::printf("offered: right\n");
}

// Half precision against the compiler's own conversions.
void halves() {
#if defined(__FLT16_MAX__)
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const __half half{static_cast<uint16_t>(bits)};
    const float wide = __half2float(half), own = static_cast<float>(std::bit_cast<_Float16>(half.bits));
    if (std::isnan(own)) continue;
    if (wide != own || __float2half_rn(wide).bits != half.bits) simt::fail("half 0x%04x", bits);
  }
  std::mt19937 random(1);
  for (int i = 0; i < 1000000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    const auto narrow = static_cast<_Float16>(value);
    if (!std::isnan(value) && __float2half_rn(value).bits != std::bit_cast<uint16_t>(narrow)) simt::fail("float %a", value);
  }
  std::printf("halves: right\n");
#else
  std::printf("halves: skipped, this compiler has no _Float16\n");
#endif
}

const Case cases[] = {
    {"write past a buffer", [] { const Array x = ramp(); start(scale, 96, 0, x.as<float>(), 64); }},
    {"read past a buffer", [] { const Array x = ramp(), y = ramp(); start(readPast, 1, 0, x.as<const float>(), y.as<float>(), 64); }},
    {"write past dynamic shared memory", [] { const Array x = ramp(); start(sharedPast, 64, 256, x.as<float>()); }},
    {"write past static shared memory", [] { const Array x = ramp(); start(staticPast, 64, 0, x.as<float>()); }},
    {"missing barrier", [] { reversed(false); }},
    {"missing barrier, ascending only", [] {
       for (uint64_t order = 0; order < 5; ++order) {
         simt::setOrder(order);
         const Array x = ramp();
         start(onwards, 64, 0, x.as<float>());
         for (int i = 0; i < 64; ++i)
           if (x[i] != std::max(i - 1, 0)) simt::fail("element %d is %g", i, x[i]);
       }
     }},
    {"crossed shuffles", [] { const Array x = ramp(); start(crossedShuffles, 32, 0, x.as<float>()); }},
    {"divergent shuffle", [] { const Array x = ramp(); start(divergentShuffle, 32, 0, x.as<float>()); }},
    {"shuffle after exit", [] { const Array x = ramp(); start(shuffleAfterExit, 32, 0, x.as<float>()); }},
    {"shuffle outside the mask", [] { const Array x = ramp(); start(shuffleOutsideMask, 32, 0, x.as<float>()); }},
    {"divergent barrier", [] { const Array x = ramp(); start(divergentBarrier, 64, 0, x.as<float>()); }},
    {"two barriers", [] { const Array x = ramp(); start(twoBarriers, 64, 0, x.as<float>()); }},
    {"cluster left early", [] {
       const Array x = ramp();
       launch("planted", nullptr, {dim3(2), dim3(1), 0, 2}, clusterWithoutSync, x.as<float>());
     }},
    {"too much shared memory", [] { const Array x = ramp(); start(sharedPast, 64, 300000, x.as<float>()); }},
    {"barrier", [] { reversed(true); std::printf("barrier: right\n"); }},
    {"offered", offered},
    {"halves", halves},
};

}  // namespace

int fault(const std::string& name) {
  for (const Case& each : cases) {
    if (name != each.name) continue;
    each.run();
    std::printf("%s: ran to its end\n", each.name);
    return 0;
  }
  std::printf("no case is called %s\n", name.c_str());
  return 2;
}

}  // namespace test
