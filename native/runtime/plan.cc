#include "plan.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "errors.h"

namespace seresnet {

namespace {

struct DTypeInfo {
  const char* name;
  size_t hostBytes;
};

constexpr std::array<DTypeInfo, 6> dtypes{
    {{"float32", 4}, {"float16", 4}, {"bfloat16", 4}, {"int32", 4}, {"int64", 8}, {"uint8", 1}}};

uint32_t toBfloat16(uint32_t bits) {
  return (bits & 0x7fffffff) > 0x7f800000 ? bits : (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
}

uint32_t toFloat16(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits & 0x80000000;
  if (magnitude > 0x7f800000) return bits;
  if (magnitude >= 0x477ff000) return sign | 0x7f800000;
  if (magnitude >= 0x38800000) return (bits + 0xfff + ((bits >> 13) & 1)) & 0xffffe000;
  // below 2^-14 halves are multiples of 2^-24, and nearbyint rounds ties to even
  const float rounded = std::nearbyint(std::bit_cast<float>(magnitude) * 16777216.0F) / 16777216.0F;
  return sign | std::bit_cast<uint32_t>(rounded);
}

}  // namespace

std::optional<DType> dtypeNamed(std::string_view name) {
  for (size_t i = 0; i < dtypes.size(); ++i)
    if (name == dtypes[i].name) return static_cast<DType>(i);
  return std::nullopt;
}

const char* nameOf(DType dtype) { return dtypes[static_cast<size_t>(dtype)].name; }

size_t hostBytes(DType dtype) { return dtypes[static_cast<size_t>(dtype)].hostBytes; }

void roundTo(DType dtype, float* data, int64_t count) {
  if (dtype != DType::float16 && dtype != DType::bfloat16) return;
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(data[i]);
    data[i] = std::bit_cast<float>(dtype == DType::bfloat16 ? toBfloat16(bits) : toFloat16(bits));
  }
}

int64_t sizeOf(const Shape& shape) {
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  return size;
}

std::string format(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string format(const Step& step) {
  struct Visitor {
    std::string operator()(double number) const {
      char text[32];
      std::snprintf(text, sizeof text, "%.17g", number);
      return text;
    }
    std::string operator()(bool flag) const { return flag ? "true" : "false"; }
    std::string operator()(const std::string& text) const { return text; }
    std::string operator()(const std::vector<double>& numbers) const {
      std::string text = "[";
      for (const double number : numbers) text += (*this)(number) + ",";
      return text + "]";
    }
  };
  std::string text = step.op + "{";
  for (const auto& [name, value] : step.attributes) text += name + ":" + std::visit(Visitor{}, value) + ";";
  return text + "}";
}

template <typename T>
const T& Step::attribute(const char* name, const char* type) const {
  const auto found = attributes.find(name);
  const T* value = found == attributes.end() ? nullptr : std::get_if<T>(&found->second);
  if (value == nullptr) throw Error(op, std::string("expected the attribute ") + name + " to be " + type);
  return *value;
}

double Step::number(const char* name) const { return attribute<double>(name, "a number"); }

bool Step::flag(const char* name, bool absent) const {
  return attributes.count(name) == 0 ? absent : attribute<bool>(name, "a boolean");
}

std::string Step::text(const char* name) const { return attribute<std::string>(name, "a string"); }

std::vector<int64_t> Step::integers(const char* name) const {
  std::vector<int64_t> values;
  for (const double number : attribute<std::vector<double>>(name, "a list of integers")) {
    if (!(std::abs(number) <= 1e9) || number != std::floor(number))
      throw Error(op, std::string("expected the attribute ") + name + " to hold integers, got " + std::to_string(number));
    values.push_back(static_cast<int64_t>(number));
  }
  return values;
}

std::vector<int64_t> Step::integers(const char* name, size_t count, int64_t least) const {
  std::vector<int64_t> values = integers(name);
  bool fits = values.size() == count;
  for (const int64_t value : values) fits = fits && value >= least;
  if (!fits)
    throw Error(op, std::string("expected the attribute ") + name + " to hold " + std::to_string(count) +
                        " integers of at least " + std::to_string(least) + ", got " + format(values));
  return values;
}

int64_t Step::integer(const char* name, int64_t least) const {
  const double value = number(name);
  if (!(value >= static_cast<double>(least) && value <= 1e9) || value != std::floor(value))
    throw Error(op, std::string("expected the attribute ") + name + " to be an integer of at least " +
                        std::to_string(least) + ", got " + std::to_string(value));
  return static_cast<int64_t>(value);
}

void Plan::validate() const {
  std::vector<bool> filled(slots.size(), false);
  const auto check = [&](uint32_t slot, const char* what) {
    if (slot >= slots.size())
      throw Error("plan", std::string("expected ") + what + " below " + std::to_string(slots.size()) + ", got " +
                              std::to_string(slot));
  };
  const auto fill = [&](const std::vector<uint32_t>& list, const char* what) {
    for (const uint32_t slot : list) {
      check(slot, what);
      if (filled[slot]) throw Error("plan", "expected slot " + std::to_string(slot) + " to be filled once, got twice");
      filled[slot] = true;
    }
  };
  const auto read = [&](const std::vector<uint32_t>& list, const char* what) {
    for (const uint32_t slot : list) {
      check(slot, what);
      if (!filled[slot]) throw Error("plan", "expected slot " + std::to_string(slot) + " to be filled before it is read");
    }
  };
  fill(inputs, "input slots");
  fill(constants, "constant slots");
  fill(variables, "variable slots");
  for (const Step& step : steps) {
    read(step.inputs, "step inputs");
    fill(step.outputs, "step outputs");
  }
  read(outputs, "output slots");
  read(written, "written slots");
}

}  // namespace seresnet
