#pragma once

#include "arguments.h"
#include "ops/table.h"

namespace seresnet::cuda {

using ops::Binary;
using ops::Unary;

// y = op(x); y may be x. NaN stays NaN under ReLU.
struct UnaryArguments {
  Unary op = Unary::relu;
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t count = 0;
};
void launchUnary(Stream stream, const UnaryArguments& arguments);

// y = a (op) b with the broadcasting that the walk's strides say (0 along repeated dims): walk.strides[0] are a's,
// walk.strides[1] b's; y is dense in the walk's order. All dtypes; integers wrap around, and div is for floats.
// y may be an operand that is not repeated.
struct BinaryArguments {
  Binary op = Binary::add;
  const void* a = nullptr;
  const void* b = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  Walk walk;
};
void launchBinary(Stream stream, const BinaryArguments& arguments);

// y = scale * x, repeated along the dims where walk.strides[0] is 0; y is dense in the walk's order. Floats.
struct BroadcastArguments {
  const void* x = nullptr;
  void* y = nullptr;
  DType dtype = DType::float32;
  Walk walk;
  double scale = 1;
};
void launchBroadcast(Stream stream, const BroadcastArguments& arguments);

// relu: dx = y <= 0 ? 0 : dy; sigmoid: dx = dy * y * (1 - y). dx may be dy or y.
struct ActivationGradientArguments {
  Unary op = Unary::relu;
  const void* y = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  DType dtype = DType::float32;
  int64_t count = 0;
};
void launchActivationGradient(Stream stream, const ActivationGradientArguments& arguments);

// Every element `value`. Float dtypes.
struct FillArguments {
  void* y = nullptr;
  DType dtype = DType::float32;
  int64_t count = 0;
  double value = 0;
};
void launchFill(Stream stream, const FillArguments& arguments);

// Converts between any two dtypes. Floats become integers by dropping the fraction, modulo the integer's range; NaN and
// infinities become 0.
struct CastArguments {
  const void* x = nullptr;
  DType from = DType::float32;
  void* y = nullptr;
  DType to = DType::float32;
  int64_t count = 0;
};
void launchCast(Stream stream, const CastArguments& arguments);

}  // namespace seresnet::cuda
