#pragma once

#include <cstdint>

// Inner loops of the own convolutions, compiled once for each vector instruction set (simd_kernels.cc).

namespace seresnet::cpu {

// c [rows, columns] = a [rows, depth] * b, row-major. b is packed: panels of Simd::panel columns, each [depth, panel],
// the last filled up with zeros.
struct Product {
  const float* a;
  int64_t aStride;  // elements between rows
  const float* b;
  int64_t bStride;  // the same, where b is not packed
  float* c;
  int64_t cStride;
  int64_t rows, columns, depth;
};

// What happens to a result before it is stored: y = relu(gate * (y + bias) + residual), each where it is given.
struct Epilogue {
  const float* bias = nullptr;      // a value for each channel
  const float* gate = nullptr;      // the same
  const float* residual = nullptr;  // laid out as the result
  bool relu = false;
};

// A square of channels-last pixels.
struct Patch {
  int64_t row, pixel;  // elements between neighbours
  int64_t channels;
};

// Winograd's transforms of one tile, F(m x m, 3 x 3) (Lavin and Gray, 2015), of which the first two are over all channels.
struct TileTransform {
  // to[i * plane + c] = (B^T x B)_i for the (m + 2)^2 elements of a patch
  void (*in)(const float* x, const Patch& patch, float* to, int64_t plane);
  // The first rows x columns of A^T m A, where m_i is from[i * plane + c].
  void (*out)(const float* from, int64_t plane, const Epilogue& epilogue, float* y, const Patch& patch, int64_t rows,
              int64_t columns);
  // to[i * plane + o] = (G g G^T)_i for the outputs of a panel, of which tap t is taps[t * panel + o].
  void (*weights)(const float* taps, float* to, int64_t plane);
  // The adjoints of the last two, for the gradient of the weights: to[i * plane + c] = (A y A^T)_i for the first
  // rows x columns of a tile, and taps[t * panel + o] = (G^T m G)_t, where m_i is from[i * plane + o].
  void (*outAdjoint)(const float* y, const Patch& patch, int64_t rows, int64_t columns, float* to, int64_t plane);
  void (*weightsAdjoint)(const float* from, int64_t plane, float* taps);
};

constexpr int64_t widestPanel = 32;

struct Simd {
  const char* name;
  int64_t panel;
  void (*multiply)(const Product&);
  // c += a^T b: a [depth, rows], b [depth, columns] and c as wide as whole panels.
  void (*accumulate)(const Product&);
  TileTransform tile2, tile4;  // m = 2 and 4
};

// The best this CPU runs, or null where it has neither AVX2 nor AVX-512.
const Simd* simd();

extern const Simd simdAvx2;
extern const Simd simdAvx512;

}  // namespace seresnet::cpu
