#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace seresnet {

enum class DType : uint8_t { float32, float16, bfloat16, int32, int64, uint8 };

std::optional<DType> dtypeNamed(std::string_view name);
const char* nameOf(DType dtype);

// Bytes of one element on the host, where every float dtype is held as float32.
size_t hostBytes(DType dtype);
inline bool isFloat(DType dtype) { return dtype <= DType::bfloat16; }

// Rounds to what a half-precision dtype can hold, ties to even; leaves the other dtypes alone.
void roundTo(DType dtype, float* data, int64_t count);

using Shape = std::vector<int64_t>;

int64_t sizeOf(const Shape& shape);
std::string format(const Shape& shape);

struct Slot {
  Shape shape;
  DType dtype;

  int64_t size() const { return sizeOf(shape); }
  size_t bytes() const { return static_cast<size_t>(size()) * hostBytes(dtype); }
};

using Attribute = std::variant<double, bool, std::string, std::vector<double>>;

// One operation; `inputs` and `outputs` are indices into the plan's slots.
struct Step {
  std::string op;
  std::map<std::string, Attribute> attributes;
  std::vector<uint32_t> inputs;
  std::vector<uint32_t> outputs;

  // Attributes by name. They throw Error when one is missing, of another type or out of its range.
  double number(const char* name) const;
  bool flag(const char* name, bool absent = false) const;
  std::string text(const char* name) const;
  std::vector<int64_t> integers(const char* name, size_t count, int64_t least) const;
  std::vector<int64_t> integers(const char* name) const;
  int64_t integer(const char* name, int64_t least) const;

 private:
  template <typename T>
  const T& attribute(const char* name, const char* type) const;
};

// The op and its attributes, as one text: equal texts mean equal computations.
std::string format(const Step& step);

// A program as lib/plan/plan.ts describes it.
struct Plan {
  std::vector<Slot> slots;
  std::vector<uint32_t> inputs;
  std::vector<uint32_t> constants;
  std::vector<uint32_t> variables;
  std::vector<uint32_t> outputs;
  std::vector<uint32_t> written;
  std::vector<Step> steps;

  // Throws Error unless every index is a slot's, every slot is filled at most once and before it is read.
  void validate() const;
};

}  // namespace seresnet
