#include "images.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "decode.h"
#include "handles.h"
#include "image/prepare.h"
#include "jobs.h"

namespace seresnet::node {

namespace {

struct ImageThread {
  std::shared_ptr<Jobs> device;

  static constexpr napi_type_tag tag{0x5ad3c81e7f2046b9, 0xc7e1093d6b8f5a24};
  static constexpr const char* name = "an image thread";
  size_t bytes() const { return 0; }
};

[[noreturn]] void refuse(const std::string& wanted) { throw Error("prepareImage", "expected " + wanted, Error::argument); }

int64_t integer(const Napi::Value& value, const std::string& what, int64_t most = (int64_t{1} << 31) - 1) {
  const double got = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(got >= 0 && got <= static_cast<double>(most)) || got != std::floor(got))
    refuse(what + " to be an integer from 0 to " + std::to_string(most));
  return static_cast<int64_t>(got);
}

std::vector<int64_t> integers(const Napi::Value& value, const std::string& what, uint32_t count, int64_t most) {
  if (!value.IsArray() || value.As<Napi::Array>().Length() != count)
    refuse(what + " to be " + std::to_string(count) + " integers");
  std::vector<int64_t> all;
  for (uint32_t i = 0; i < count; ++i) all.push_back(integer(value.As<Napi::Array>().Get(i), what, most));
  return all;
}

Napi::Object object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) refuse(what + " to be an object");
  return value.As<Napi::Object>();
}

std::vector<int32_t> int32s(const Napi::Object& owner, const char* name) {
  const Napi::Value value = owner.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    refuse(std::string(name) + " to be an Int32Array");
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// Taps that stay inside an image of `extent` pixels.
image::Taps toTaps(const Napi::Value& value, const std::string& what, size_t extent) {
  const Napi::Object given = object(value, what);
  image::Taps taps{int32s(given, "first"), int32s(given, "count"), int32s(given, "weights"),
                   static_cast<size_t>(integer(given.Get("stride"), what + ".stride"))};
  const size_t length = taps.length();
  if (length == 0 || taps.count.size() != length || taps.weights.size() != length * taps.stride)
    refuse(what + " to hold as many counts as positions, and their weights");
  for (size_t i = 0; i < length; ++i) {
    const int64_t first = taps.first[i], count = taps.count[i];
    if (first < 0 || count < 1 || static_cast<size_t>(count) > taps.stride || static_cast<size_t>(first + count) > extent)
      refuse(what + " inside the image");
  }
  return taps;
}

std::array<uint8_t, 3> toColour(const Napi::Value& value, const std::string& what) {
  const auto bytes = integers(value, what, 3, 255);
  return {static_cast<uint8_t>(bytes[0]), static_cast<uint8_t>(bytes[1]), static_cast<uint8_t>(bytes[2])};
}

image::Colours toColours(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "cmyk") return image::Colours::cmyk;
  if (name == "gif") return image::Colours::gif;
  if (name != "plain") refuse("colours to be plain, cmyk or gif");
  return image::Colours::plain;
}

image::Samples toSamples(const Napi::Value& value, const Napi::Object& given) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    refuse("the samples to be a Uint8Array");
  const auto bytes = value.As<Napi::Uint8Array>();
  const auto extent = [&](const char* name) { return static_cast<size_t>(integer(given.Get(name), name)); };
  const image::Samples samples{bytes.Data(), extent("width"), extent("height"), extent("channels")};
  if (samples.width == 0 || samples.height == 0 || samples.channels == 0 || samples.channels > 5 ||
      bytes.ElementLength() / samples.channels / samples.width != samples.height ||
      bytes.ElementLength() != samples.width * samples.height * samples.channels)
    refuse("width * height * channels samples");
  return samples;
}

image::Preparation toPreparation(const Napi::Value& samples, const Napi::Object& given) {
  image::Preparation all;
  all.samples = toSamples(samples, given);
  all.colours = toColours(given.Get("colours"));
  if (all.colours == image::Colours::cmyk && all.samples.channels < 4) refuse("four channels of cmyk");
  if (all.colours == image::Colours::gif) {
    const auto drawn = integers(given.Get("drawn"), "drawn", 4, 1 << 16);
    all.drawn = {drawn[0], drawn[1], drawn[2], drawn[3]};
    all.background = toColour(given.Get("background"), "background");
  }
  all.transposed = given.Get("transposed").ToBoolean().Value();
  const auto [data, width, height, channels] = all.samples;
  all.across = toTaps(given.Get("across"), "across", all.transposed ? height : width);
  all.down = toTaps(given.Get("down"), "down", all.transposed ? width : height);
  all.channels = static_cast<size_t>(integer(given.Get("outputChannels"), "outputChannels", 3));
  if (all.channels != 1 && all.channels != 3) refuse("outputChannels to be 1 or 3");
  if (const Napi::Value canvas = given.Get("canvas"); !canvas.IsUndefined()) {
    const Napi::Object square = object(canvas, "canvas");
    const auto extent = [&](const char* name) { return static_cast<size_t>(integer(square.Get(name), name, 1 << 15)); };
    all.canvas = {extent("side"), extent("left"), extent("top"), toColour(square.Get("fill"), "fill")};
    if (all.canvas->left + all.across.length() > all.canvas->side || all.canvas->top + all.down.length() > all.canvas->side)
      refuse("an image that fits on its canvas");
  }
  if (const Napi::Value vectors = given.Get("vectors"); !vectors.IsUndefined()) all.vectors = vectors.ToBoolean().Value();
  return all;
}

std::vector<float> toTable(const Napi::Value& value, size_t channels) {
  if (value.IsUndefined()) return {};
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array ||
      value.As<Napi::TypedArray>().ElementLength() != 256 * channels)
    refuse("table to be a Float32Array with 256 values for each channel");
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

template <typename T>
std::shared_ptr<HostMemory> toMemory(const std::vector<T>& values) {
  auto memory = std::make_shared<HostMemory>(values.size() * sizeof(T));
  std::memcpy(memory->data(), values.data(), memory->bytes());
  return memory;
}

}  // namespace

Napi::Value openImages(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), ImageThread{std::make_shared<Jobs>(info.Env())});
}

namespace {

// What is to be done, and what comes of it.
struct Job {
  image::Preparation preparation;
  std::vector<float> table;
  std::shared_ptr<HostMemory> result;

  Job(const Napi::Value& samples, const Napi::Value& given)
      : preparation(toPreparation(samples, object(given, "a preparation"))),
        table(toTable(given.As<Napi::Object>().Get("table"), preparation.channels)) {}

  void run() {
    const std::vector<uint8_t> image = image::prepare(preparation);
    result = table.empty() ? toMemory(image) : toMemory(image::normalized(image, preparation.channels, table));
  }

  // The result, once the samples' memory is freed: tens of megabytes must not wait for a collection.
  Napi::Value finish(const Napi::Uint8Array& samples) {
    napi_detach_arraybuffer(samples.Env(), samples.ArrayBuffer());
    return toTypedArray(samples.Env(), table.empty() ? DType::uint8 : DType::float32, std::move(result));
  }
};

}  // namespace

Napi::Value prepareImage(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Jobs> jobs = unwrap<ImageThread>(info[0], "prepareImage").device;
  auto job = std::make_shared<Job>(info[1], info[2]);
  auto samples = std::make_shared<Napi::Reference<Napi::Uint8Array>>(Napi::Persistent(info[1].As<Napi::Uint8Array>()));
  return jobs->submit([job] { job->run(); }, [job, samples](Napi::Env) { return job->finish(samples->Value()); });
}

Napi::Value prepareImageHere(const Napi::CallbackInfo& info) {
  Job job(info[0], info[1]);
  job.run();
  return job.finish(info[0].As<Napi::Uint8Array>());
}

}  // namespace seresnet::node
