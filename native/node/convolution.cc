#include "convolution.h"

#include "runtime/errors.h"

namespace seresnet::node {

namespace {

std::vector<int64_t> integers(const Napi::Object& owner, const char* name, uint32_t count) {
  const Napi::Value value = owner.Get(name);
  const std::string what = std::string("expected ") + name + " to be " + std::to_string(count) + " integers";
  if (!value.IsArray() || value.As<Napi::Array>().Length() != count) throw Error("convolution", what, Error::argument);
  std::vector<int64_t> all;
  for (uint32_t i = 0; i < count; ++i) {
    const Napi::Value item = value.As<Napi::Array>().Get(i);
    const int64_t number = item.IsNumber() ? item.As<Napi::Number>().Int64Value() : -1;
    if (number < 0 || number > (1 << 24)) throw Error("convolution", what, Error::argument);
    all.push_back(number);
  }
  return all;
}

bool flag(const Napi::Object& owner, const char* name) { return owner.Get(name).ToBoolean().Value(); }

cuda::Convolution toConvolution(const Napi::Object& given) {
  const auto x = integers(given, "input", 4);
  const auto w = integers(given, "weight", 4);
  const auto stride = integers(given, "stride", 2);
  const auto padding = integers(given, "padding", 2);
  cuda::Convolution c;
  const std::string dtype = given.Get("dtype").ToString().Utf8Value();
  const auto named = dtypeNamed(dtype == "tf32" ? "float32" : dtype);
  if (!named || !isFloat(*named)) throw Error("convolution", "expected a float dtype or tf32, got " + dtype, Error::dtype);
  c.dtype = *named;
  c.tf32 = dtype == "tf32";
  c.batch = x[0];
  c.channels = x[1];
  c.height = x[2];
  c.width = x[3];
  c.outChannels = w[0];
  c.groups = w[1] > 0 ? x[1] / w[1] : 0;
  for (size_t i = 0; i < 2; ++i) {
    c.kernel[i] = w[2 + i];
    c.stride[i] = stride[i];
    c.padding[i] = padding[i];
    const int64_t free = x[2 + i] + 2 * padding[i] - w[2 + i];
    if (stride[i] == 0 || w[2 + i] == 0 || free < 0 || c.groups == 0)
      throw Error("convolution", "expected a window inside the image", Error::argument);
    (i == 0 ? c.outHeight : c.outWidth) = free / stride[i] + 1;
  }
  const std::string pass = given.Has("pass") ? given.Get("pass").ToString().Utf8Value() : "forward";
  if (pass == "inputGradient") c.pass = cuda::Convolution::Pass::inputGradient;
  else if (pass == "weightGradient") c.pass = cuda::Convolution::Pass::weightGradient;
  if (given.Has("alignment")) {
    const auto bytes = integers(given, "alignment", 3);
    c.xAlignment = bytes[0];
    c.wAlignment = bytes[1];
    c.yAlignment = bytes[2];
  }
  c.gate = flag(given, "gate");
  c.bias = flag(given, "bias");
  c.residual = flag(given, "residual");
  c.relu = flag(given, "relu");
  return c;
}

}  // namespace

std::vector<cuda::Convolution> toConvolutions(const Napi::Value& value) {
  if (!value.IsArray()) throw Error("convolution", "expected a list of convolutions", Error::argument);
  const Napi::Array list = value.As<Napi::Array>();
  std::vector<cuda::Convolution> all;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value item = list.Get(i);
    if (!item.IsObject()) throw Error("convolution", "expected an object", Error::argument);
    all.push_back(toConvolution(item.As<Napi::Object>()));
  }
  return all;
}

}  // namespace seresnet::node
