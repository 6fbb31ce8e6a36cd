#include <cstdlib>
#include <cstring>

#include "check.h"
#include "cuda/kernels/launch.h"
#include "fiber.h"

namespace test {

namespace {

uint64_t orders = 5;
int cases = 0, failures = 0;

double toleranceOf(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 2e-6;
    case DType::float16:
      return 1e-3;
    case DType::bfloat16:
      return 8e-3;
    default:
      return 0;
  }
}

// The worst element's error in units of what is allowed: the dtype's rounding of the element or, for sums that cancel, of
// the typical element or term.
double worst(const Array& array, const Values& expected, double terms) {
  double squares = 0;
  int64_t finite = 0;
  for (const double value : expected) {
    if (!std::isfinite(value)) continue;
    squares += value * value;
    ++finite;
  }
  const double typical = std::max(terms, finite == 0 ? 0 : std::sqrt(squares / static_cast<double>(finite)));
  double result = 0;
  for (int64_t i = 0; i < array.size(); ++i) {
    const double got = array[i], want = expected[static_cast<size_t>(i)];
    if (std::isnan(want) ? std::isnan(got) : got == want) continue;
    const double allowed = toleranceOf(array.dtype()) * std::max(std::abs(want), typical);
    const double error = std::abs(got - want) / allowed;
    result = std::isnan(error) ? INFINITY : std::max(result, error);
  }
  return result;
}

}  // namespace

size_t bytesOf(DType dtype) {
  switch (dtype) {
    case DType::uint8:
      return 1;
    case DType::float16:
    case DType::bfloat16:
      return 2;
    case DType::int64:
      return 8;
    default:
      return 4;
  }
}

Array::Array(DType dtype, int64_t count)
    : dtype_(dtype), count_(count), data_(simt::allocate(static_cast<size_t>(count) * bytesOf(dtype))) {}

Array::Array(DType dtype, const Values& values) : Array(dtype, static_cast<int64_t>(values.size())) {
  for (int64_t i = 0; i < count_; ++i) set(i, values[static_cast<size_t>(i)]);
}

void Array::set(int64_t i, double value) {
  switch (dtype_) {
    case DType::float32:
      as<float>()[i] = static_cast<float>(value);
      break;
    case DType::float16:
      as<__half>()[i] = __float2half_rn(static_cast<float>(value));
      break;
    case DType::bfloat16:
      as<__nv_bfloat16>()[i] = __float2bfloat16_rn(static_cast<float>(value));
      break;
    case DType::int32:
      as<int32_t>()[i] = static_cast<int32_t>(value);
      break;
    case DType::int64:
      as<int64_t>()[i] = static_cast<int64_t>(value);
      break;
    case DType::uint8:
      as<uint8_t>()[i] = static_cast<uint8_t>(value);
      break;
  }
}

double Array::operator[](int64_t i) const {
  switch (dtype_) {
    case DType::float16:
      return __half2float(as<__half>()[i]);
    case DType::bfloat16:
      return __bfloat162float(as<__nv_bfloat16>()[i]);
    case DType::int32:
      return as<int32_t>()[i];
    case DType::int64:
      return static_cast<double>(as<int64_t>()[i]);
    case DType::uint8:
      return as<uint8_t>()[i];
    default:
      return as<float>()[i];
  }
}

Values Array::values() const {
  Values result;
  for (int64_t i = 0; i < count_; ++i) result.push_back((*this)[i]);
  return result;
}

Values normal(int64_t count, unsigned seed, double mean, double spread) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(mean, spread);
  Values result(static_cast<size_t>(count));
  for (double& value : result) value = draw(random);
  return result;
}

void check(const std::string& what, std::initializer_list<Output> outputs, const std::function<void()>& kernel) {
  ++cases;
  std::vector<std::vector<unsigned char>> first;
  std::string wrong;
  for (uint64_t order = 0; order < orders && wrong.empty(); ++order) {
    simt::setOrder(order);
    for (const Output& output : outputs) std::memset(output.array.data(), 0xFF, output.array.bytes());
    kernel();
    size_t number = 0;
    for (const Output& output : outputs) {
      const auto* bytes = output.array.as<unsigned char>();
      if (order == 0) first.emplace_back(bytes, bytes + output.array.bytes());
      const double error = worst(output.array, output.expected, output.terms);
      const std::string which = "output " + std::to_string(number) + ", order " + std::to_string(order);
      if (!(error <= 1)) wrong = which + ": " + std::to_string(error) + " times the error allowed";
      else if (std::memcmp(first[number].data(), bytes, first[number].size()) != 0) wrong = which + ": other bits";
      ++number;
    }
  }
  simt::setOrder(0);
  if (wrong.empty()) return;
  ++failures;
  std::printf("FAILED %s (%s)\n", what.c_str(), wrong.c_str());
}

}  // namespace test

// simt fault NAME | simt images|squeeze_excite|tensors ORDERS
int main(int count, char** words) {
  const std::string what = count == 3 ? words[1] : "";
  if (what == "fault") return test::fault(words[2]);
  test::orders = what.empty() ? 0 : std::strtoull(words[2], nullptr, 10);
  if (what == "images") test::imageKernels();
  else if (what == "squeeze_excite") test::squeezeExciteKernels();
  else if (what == "tensors") test::tensorKernels();
  if (test::orders == 0 || test::cases == 0) {
    std::fprintf(stderr, "usage: simt fault NAME | simt images|squeeze_excite|tensors ORDERS\n");
    return 2;
  }
  const simt::Counts ran = simt::counts();
  std::printf("simt %s: %d cases, %llu orders, %llu kernels, %llu blocks, %llu threads, %s; %d failed\n", what.c_str(), test::cases,
              static_cast<unsigned long long>(test::orders), static_cast<unsigned long long>(ran.kernels),
              static_cast<unsigned long long>(ran.blocks), static_cast<unsigned long long>(ran.threads),
              simt::sanitized ? "AddressSanitizer" : "no sanitizer", test::failures);
  return test::failures == 0 ? 0 : 1;
}
