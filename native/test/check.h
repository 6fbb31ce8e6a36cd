#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/plan.h"
#include "simt.h"

// Tests of kernels: arrays in simulated device memory, compared with numbers computed in float64 from the same (rounded)
// inputs. Every case runs in several orders of the threads, and all must give the same bits.
namespace test {

using seresnet::DType;
using Values = std::vector<double>;

constexpr DType floats[] = {DType::float32, DType::float16, DType::bfloat16};

size_t bytesOf(DType dtype);

class Array {
 public:
  Array(DType dtype, int64_t count);
  Array(DType dtype, const Values& values);
  ~Array() { simt::release(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size() const { return count_; }
  size_t bytes() const { return static_cast<size_t>(count_) * bytesOf(dtype_); }
  DType dtype() const { return dtype_; }
  double operator[](int64_t i) const;
  void set(int64_t i, double value);
  Values values() const;

 private:
  DType dtype_;
  int64_t count_;
  void* data_;
};

// Normally distributed numbers, the same for the same seed.
Values normal(int64_t count, unsigned seed, double mean = 0, double spread = 1);

struct Output {
  Array& array;
  Values expected;
  double terms = 0;  // the typical size of what was added, where sums may cancel to something much smaller
};

// Runs `kernel` in every order, with the outputs spoiled before, and compares.
void check(const std::string& what, std::initializer_list<Output> outputs, const std::function<void()>& kernel);

// All of the kernels' tests; harness.cc and main.cc.
void imageKernels();
void squeezeExciteKernels();
void tensorKernels();
int fault(const std::string& name);

}  // namespace test
