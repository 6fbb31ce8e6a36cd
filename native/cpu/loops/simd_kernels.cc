// Compiled once for each instruction set, with SERESNET_SIMD the name of its table and the compiler's flags to match: it
// must not include anything that defines functions, for the linker would keep one copy of them for all CPUs.
#include "simd.h"

namespace seresnet::cpu {

namespace {

#ifdef __AVX512F__
constexpr const char* name = "avx512";
constexpr int lanes = 16;
constexpr int mostRows = 12;  // times two vectors of columns: 24 of 32 registers hold sums
#else
constexpr const char* name = "avx2";
constexpr int lanes = 8;
constexpr int mostRows = 6;  // 12 of 16
#endif
constexpr int panel = 2 * lanes;

using Vector [[gnu::vector_size(lanes * sizeof(float))]] = float;

template <typename V>
inline V load(const float* x) {
  V v;
  __builtin_memcpy(&v, x, sizeof(V));
  return v;
}

template <typename V>
inline void store(float* x, V v) {
  __builtin_memcpy(x, &v, sizeof(V));
}

// NaN stays NaN: it is not below 0.
inline float reluOf(float v) { return 0 > v ? 0 : v; }
inline Vector reluOf(Vector v) { return Vector{} > v ? Vector{} : v; }

// Sums of R rows and up to a panel's columns, in registers.
template <int R, int vectors>
struct Sums {
  Vector of[R][vectors] = {};

  void add(int r, float x, const Vector (&b)[vectors]) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) of[r][v] += x * b[v];
  }
};

template <int vectors>
inline void loadPanel(const float* b, Vector (&to)[vectors]) {
#pragma GCC unroll 2
  for (int v = 0; v < vectors; ++v) to[v] = load<Vector>(b + v * lanes);
}

// c = a b for R rows and one panel, of which `vectors` vectors hold columns that are wanted.
struct Multiply {
  template <int R, int vectors>
  static void block(const Product& p, int64_t row, int64_t column) {
    Sums<R, vectors> sums;
    const int64_t depth = p.depth;
    const int64_t aStride = p.aStride;
    const float* a = p.a + row * aStride;
    const float* b = p.b + column * depth;
    for (int64_t k = 0; k < depth; ++k, b += panel) {
      Vector read[vectors];
      loadPanel(b, read);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums.add(r, a[r * aStride + k], read);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* c = p.c + (row + r) * p.cStride + column;
      if (column + vectors * lanes <= p.columns) {
        for (int v = 0; v < vectors; ++v) store(c + v * lanes, sums.of[r][v]);
      } else {
        float rest[vectors * lanes];
        for (int v = 0; v < vectors; ++v) store(rest + v * lanes, sums.of[r][v]);
        for (int64_t i = 0; column + i < p.columns; ++i) c[i] = rest[i];
      }
    }
  }
};

// c += a^T b for the same.
struct Accumulate {
  template <int R, int vectors>
  static void block(const Product& p, int64_t row, int64_t column) {
    Sums<R, vectors> sums;
    const float* a = p.a + row;
    const float* b = p.b + column;
    for (int64_t k = 0; k < p.depth; ++k, a += p.aStride, b += p.bStride) {
      Vector read[vectors];
      loadPanel(b, read);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums.add(r, a[r], read);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* c = p.c + (row + r) * p.cStride + column;
      for (int v = 0; v < vectors; ++v) store(c + v * lanes, load<Vector>(c + v * lanes) + sums.of[r][v]);
    }
  }
};

template <typename Op, int vectors, int R = mostRows>
inline void forRows(const Product& p, int64_t rows, int64_t row, int64_t column) {
  if (rows == R) return Op::template block<R, vectors>(p, row, column);
  if constexpr (R > 1) forRows<Op, vectors, R - 1>(p, rows, row, column);
}

// Block by block: as many of nearly equal height as needed, for a last one of few rows would leave the units waiting for
// its sums.
template <typename Op>
void forBlocks(const Product& p) {
  const int64_t blocks = (p.rows + mostRows - 1) / mostRows;
  for (int64_t column = 0; column < p.columns; column += panel)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t row = p.rows * block / blocks;
      const int64_t rows = p.rows * (block + 1) / blocks - row;
      if (p.columns - column > lanes) forRows<Op, 2>(p, rows, row, column);
      else forRows<Op, 1>(p, rows, row, column);
    }
}

// The transforms interpolate at 0, 1, -1 and infinity (m = 2), and at 0, -+sqrt(1/2), -+sqrt(2) and infinity (m = 4),
// whose rounding errors are half of those of 0, -+1, -+2 and infinity.
constexpr float a = 0.70710678F;
constexpr float b = 1.41421356F;

template <typename V>
inline void transformIn(const V (&x)[4], V (&y)[4]) {
  y[0] = x[2] - x[0];
  y[1] = x[2] + x[1];
  y[2] = x[2] - x[1];
  y[3] = x[3] - x[1];
}

template <typename V>
inline void transformIn(const V (&x)[6], V (&y)[6]) {
  const V evenA = x[4] - 2 * x[2];
  const V oddA = a * (x[3] - 2 * x[1]);
  const V evenB = x[4] - 0.5F * x[2];
  const V oddB = b * (x[3] - 0.5F * x[1]);
  y[0] = x[0] - 2.5F * x[2] + x[4];
  y[1] = evenA + oddA;
  y[2] = evenA - oddA;
  y[3] = evenB + oddB;
  y[4] = evenB - oddB;
  y[5] = x[1] - 2.5F * x[3] + x[5];
}

template <typename V>
inline void transformWeights(const V (&g)[3], V (&y)[4]) {
  const V even = 0.5F * (g[0] + g[2]);
  y[0] = -g[0];
  y[1] = even + 0.5F * g[1];
  y[2] = even - 0.5F * g[1];
  y[3] = g[2];
}

template <typename V>
inline void transformWeights(const V (&g)[3], V (&y)[6]) {
  const V evenA = (g[0] + 0.5F * g[2]) * (-1 / 1.5F);
  const V oddA = g[1] * (-a / 1.5F);
  const V evenB = (g[0] + 2 * g[2]) * (1 / 6.F);
  const V oddB = g[1] * (b / 6.F);
  y[0] = g[0];
  y[1] = evenA + oddA;
  y[2] = evenA - oddA;
  y[3] = evenB + oddB;
  y[4] = evenB - oddB;
  y[5] = g[2];
}

template <typename V>
inline void transformOut(const V (&x)[4], V (&y)[2]) {
  y[0] = x[0] + x[1] + x[2];
  y[1] = x[1] - x[2] + x[3];
}

template <typename V>
inline void transformOut(const V (&x)[6], V (&y)[4]) {
  const V evenA = x[1] + x[2];
  const V oddA = a * (x[1] - x[2]);
  const V evenB = x[3] + x[4];
  const V oddB = b * (x[3] - x[4]);
  y[0] = x[0] + evenA + evenB;
  y[1] = oddA + oddB;
  y[2] = 0.5F * evenA + 2 * evenB;
  y[3] = 0.5F * oddA + 2 * oddB + x[5];
}

// One vector of results, on its way to y; `at` is its place there and c its first channel.
template <typename V>
inline void finish(V v, const Epilogue& e, int64_t c, int64_t at, float* y) {
  if (e.bias != nullptr) v += load<V>(e.bias + c);
  if (e.gate != nullptr) v *= load<V>(e.gate + c);
  if (e.residual != nullptr) v += load<V>(e.residual + at);
  if (e.relu) v = reluOf(v);
  store(y + at, v);
}

template <typename V>
inline void outAdjoint(const V (&y)[2], V (&x)[4]) {
  x[0] = y[0];
  x[1] = y[0] + y[1];
  x[2] = y[0] - y[1];
  x[3] = y[1];
}

template <typename V>
inline void outAdjoint(const V (&y)[4], V (&x)[6]) {
  const V evenA = y[0] + 0.5F * y[2];
  const V oddA = a * (y[1] + 0.5F * y[3]);
  const V evenB = y[0] + 2 * y[2];
  const V oddB = b * (y[1] + 2 * y[3]);
  x[0] = y[0];
  x[1] = evenA + oddA;
  x[2] = evenA - oddA;
  x[3] = evenB + oddB;
  x[4] = evenB - oddB;
  x[5] = y[3];
}

template <typename V>
inline void weightsAdjoint(const V (&y)[4], V (&g)[3]) {
  const V even = 0.5F * (y[1] + y[2]);
  g[0] = even - y[0];
  g[1] = 0.5F * (y[1] - y[2]);
  g[2] = even + y[3];
}

template <typename V>
inline void weightsAdjoint(const V (&y)[6], V (&g)[3]) {
  const V evenA = (y[1] + y[2]) * (-1 / 1.5F);
  const V evenB = (y[3] + y[4]) * (1 / 6.F);
  g[0] = y[0] + evenA + evenB;
  g[1] = (y[1] - y[2]) * (-a / 1.5F) + (y[3] - y[4]) * (b / 6.F);
  g[2] = 0.5F * evenA + 2 * evenB + y[5];
}

template <int m, typename V>
inline void tileIn(const float* x, const Patch& patch, float* to, int64_t plane) {
  constexpr int size = m + 2;
  V columns[size][size];
#pragma GCC unroll 6
  for (int j = 0; j < size; ++j) {
    V read[size];
#pragma GCC unroll 6
    for (int i = 0; i < size; ++i) read[i] = load<V>(x + i * patch.row + j * patch.pixel);
    transformIn(read, columns[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < size; ++i) {
    V row[size];
    V made[size];
#pragma GCC unroll 6
    for (int j = 0; j < size; ++j) row[j] = columns[j][i];
    transformIn(row, made);
#pragma GCC unroll 6
    for (int j = 0; j < size; ++j) store(to + (i * size + j) * plane, made[j]);
  }
}

template <int m, typename V>
inline void tileOut(const float* from, int64_t plane, const Epilogue& e, int64_t c, float* y, const Patch& patch,
                    int64_t rows, int64_t columns) {
  constexpr int size = m + 2;
  V halves[size][m];
#pragma GCC unroll 6
  for (int j = 0; j < size; ++j) {
    V read[size];
#pragma GCC unroll 6
    for (int i = 0; i < size; ++i) read[i] = load<V>(from + (i * size + j) * plane + c);
    transformOut(read, halves[j]);
  }
  for (int i = 0; i < m && i < rows; ++i) {
    V row[size];
    V made[m];
#pragma GCC unroll 6
    for (int j = 0; j < size; ++j) row[j] = halves[j][i];
    transformOut(row, made);
    for (int j = 0; j < m && j < columns; ++j) finish(made[j], e, c, i * patch.row + j * patch.pixel + c, y);
  }
}

template <int m>
void tileIn(const float* x, const Patch& patch, float* to, int64_t plane) {
  int64_t c = 0;
  for (; c + lanes <= patch.channels; c += lanes) tileIn<m, Vector>(x + c, patch, to + c, plane);
  for (; c < patch.channels; ++c) tileIn<m, float>(x + c, patch, to + c, plane);
}

template <int m>
void tileOut(const float* from, int64_t plane, const Epilogue& e, float* y, const Patch& patch, int64_t rows,
             int64_t columns) {
  int64_t c = 0;
  for (; c + lanes <= patch.channels; c += lanes) tileOut<m, Vector>(from, plane, e, c, y, patch, rows, columns);
  for (; c < patch.channels; ++c) tileOut<m, float>(from, plane, e, c, y, patch, rows, columns);
}

template <int m, typename V>
inline void tileOutAdjoint(const float* y, const Patch& patch, int64_t rows, int64_t columns, float* to, int64_t plane) {
  constexpr int size = m + 2;
  V halves[m][size];
  for (int j = 0; j < m; ++j) {
    V read[m] = {};
    for (int i = 0; i < m && i < rows && j < columns; ++i) read[i] = load<V>(y + i * patch.row + j * patch.pixel);
    outAdjoint(read, halves[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < size; ++i) {
    V row[m];
    V made[size];
#pragma GCC unroll 6
    for (int j = 0; j < m; ++j) row[j] = halves[j][i];
    outAdjoint(row, made);
#pragma GCC unroll 6
    for (int j = 0; j < size; ++j) store(to + (i * size + j) * plane, made[j]);
  }
}

template <int m>
void tileOutAdjoint(const float* y, const Patch& patch, int64_t rows, int64_t columns, float* to, int64_t plane) {
  int64_t c = 0;
  for (; c + lanes <= patch.channels; c += lanes) tileOutAdjoint<m, Vector>(y + c, patch, rows, columns, to + c, plane);
  for (; c < patch.channels; ++c) tileOutAdjoint<m, float>(y + c, patch, rows, columns, to + c, plane);
}

template <int m>
void tileWeightsAdjoint(const float* from, int64_t plane, float* taps) {
  constexpr int size = m + 2;
  for (int o = 0; o < panel; o += lanes) {
    Vector halves[size][3];
    for (int i = 0; i < size; ++i) {
      Vector row[size];
      for (int j = 0; j < size; ++j) row[j] = load<Vector>(from + (i * size + j) * plane + o);
      weightsAdjoint(row, halves[i]);
    }
    for (int j = 0; j < 3; ++j) {
      Vector column[size];
      Vector made[3];
      for (int i = 0; i < size; ++i) column[i] = halves[i][j];
      weightsAdjoint(column, made);
      for (int i = 0; i < 3; ++i) store(taps + (i * 3 + j) * panel + o, made[i]);
    }
  }
}

template <int m>
void tileWeights(const float* taps, float* to, int64_t plane) {
  constexpr int size = m + 2;
  for (int o = 0; o < panel; o += lanes) {
    Vector halves[3][size];
    for (int j = 0; j < 3; ++j) {
      const Vector column[3] = {load<Vector>(taps + j * panel + o), load<Vector>(taps + (3 + j) * panel + o),
                                load<Vector>(taps + (6 + j) * panel + o)};
      transformWeights(column, halves[j]);
    }
    for (int i = 0; i < size; ++i) {
      const Vector row[3] = {halves[0][i], halves[1][i], halves[2][i]};
      Vector made[size];
      transformWeights(row, made);
      for (int j = 0; j < size; ++j) store(to + (i * size + j) * plane + o, made[j]);
    }
  }
}

}  // namespace

extern const Simd SERESNET_SIMD = {name,
                                   panel,
                                   forBlocks<Multiply>,
                                   forBlocks<Accumulate>,
                                   {tileIn<2>, tileOut<2>, tileWeights<2>, tileOutAdjoint<2>, tileWeightsAdjoint<2>},
                                   {tileIn<4>, tileOut<4>, tileWeights<4>, tileOutAdjoint<4>, tileWeightsAdjoint<4>}};

}  // namespace seresnet::cpu
