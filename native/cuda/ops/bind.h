#pragma once

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/program/builder.h"

namespace seresnet::cuda {

// A float vector among the buffers, with its dtype there.
using VectorAt = std::pair<BufferId, DType>;
constexpr VectorAt noVector{none, DType::float32};

// A buffer for a field of a kernel's arguments, which gets its address in each run; null for `none`.
template <auto field>
struct Binding;

template <typename Arguments, typename Field, Field Arguments::*field>
struct Binding<field> {
  BufferId id;
  DType dtype;  // of a vector

  void fill(Arguments& arguments, const Pointers& p) const {
    if constexpr (std::is_pointer_v<Field>) arguments.*field = p.at<std::remove_pointer_t<Field>>(id);
    else arguments.*field = {p.at(id), dtype};
  }
};

template <auto field>
Binding<field> bind(BufferId id, DType dtype = DType::float32) {
  return {id, dtype};
}

template <auto field>
Binding<field> bind(const VectorAt& at) {
  return {at.first, at.second};
}

// Adds a kernel: `launch` with `arguments`, whose other fields are bound to buffers. Braces around the bindings,
// std::tuple{...}, have them evaluated in their order.
template <typename Arguments, typename... Bindings>
void emitLaunch(Builder& b, std::string implementation, void (*launch)(Stream, const Arguments&), Arguments arguments,
                const std::tuple<Bindings...>& bindings) {
  std::apply([&](const auto&... each) { (b.touch(each.id), ...); }, bindings);
  b.emit(std::move(implementation), [=](Stream stream, const Pointers& p) mutable {
    std::apply([&](const auto&... each) { (each.fill(arguments, p), ...); }, bindings);
    launch(stream, arguments);
  });
}

}  // namespace seresnet::cuda
