#pragma once

// The one place that knows the difference between oneDNN 2.x and 3.x.

#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "runtime/errors.h"
#include "runtime/executor_thread.h"
#include "runtime/memory.h"

namespace seresnet::cpu {

// What kernels run with: made with the backend, used on the executor thread only.
struct Onednn {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

// A text that is the same for two descriptors only if they describe the same order in memory.
inline std::string nameOf(const dnnl::memory::desc& desc) {
#if DNNL_VERSION_MAJOR >= 3
  std::string name = std::to_string(static_cast<int>(desc.get_format_kind())) + " " +
                     std::to_string(static_cast<int>(desc.get_data_type())) + " " + std::to_string(desc.get_size());
  for (const auto& list : {desc.get_dims(), desc.get_padded_dims(), desc.get_strides(), desc.get_inner_blks(),
                           desc.get_inner_idxs()}) {
    name += ";";
    for (const auto number : list) name += std::to_string(number) + ",";
  }
  return name;
#else
  return std::string(reinterpret_cast<const char*>(&desc.data), sizeof desc.data);
#endif
}

inline dnnl::memory::dims dimsOf(const dnnl::memory::desc& desc) {
#if DNNL_VERSION_MAJOR >= 3
  return desc.get_dims();
#else
  return desc.dims();
#endif
}

inline dnnl::memory::data_type dataTypeOf(const dnnl::memory::desc& desc) {
#if DNNL_VERSION_MAJOR >= 3
  return desc.get_data_type();
#else
  return desc.data_type();
#endif
}

// NaN becomes 0: see relu_convolution.h.
inline void appendRelu(dnnl::post_ops& ops) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.F, 0.F);
#else
  ops.append_eltwise(1.F, dnnl::algorithm::eltwise_relu, 0.F, 0.F);
#endif
}

struct ConvolutionShape {
  dnnl::memory::desc source, weights, bias, destination;  // a zero bias descriptor means none
  bool hasBias = false;
  dnnl::memory::dims strides, dilation, padding;  // dilation as oneDNN counts it: 0 is dense
};

// What making a primitive may take: its code, packed weights of a trial, the stacks of OpenMP's threads. Where the system
// refuses it, oneDNN 2.6 crashes.
inline void beforePrimitive() {
  requireRoom(size_t{64} << 20);
  guardExit();
}

inline dnnl::convolution_forward::primitive_desc describe(const Onednn& onednn, dnnl::algorithm algorithm,
                                                          const ConvolutionShape& c, const dnnl::primitive_attr& attr) {
  beforePrimitive();
  using Convolution = dnnl::convolution_forward;
  constexpr auto kind = dnnl::prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
  if (c.hasBias)
    return Convolution::primitive_desc(onednn.engine, kind, algorithm, c.source, c.weights, c.bias, c.destination,
                                       c.strides, c.dilation, c.padding, c.padding, attr);
  return Convolution::primitive_desc(onednn.engine, kind, algorithm, c.source, c.weights, c.destination, c.strides,
                                     c.dilation, c.padding, c.padding, attr);
#else
  const auto desc = c.hasBias ? Convolution::desc(kind, algorithm, c.source, c.weights, c.bias, c.destination, c.strides,
                                                  c.dilation, c.padding, c.padding)
                              : Convolution::desc(kind, algorithm, c.source, c.weights, c.destination, c.strides,
                                                  c.dilation, c.padding, c.padding);
  return Convolution::primitive_desc(desc, attr, onednn.engine);
#endif
}

// The forward descriptor that the backward ones ask for as a hint; none of them has a bias.
inline dnnl::convolution_forward::primitive_desc describeHint(const Onednn& onednn, const ConvolutionShape& c) {
  using Convolution = dnnl::convolution_forward;
  constexpr auto kind = dnnl::prop_kind::forward_training;
  constexpr auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return Convolution::primitive_desc(onednn.engine, kind, direct, c.source, c.weights, c.destination, c.strides,
                                     c.dilation, c.padding, c.padding);
#else
  return Convolution::primitive_desc(Convolution::desc(kind, direct, c.source, c.weights, c.destination, c.strides,
                                                       c.dilation, c.padding, c.padding),
                                     onednn.engine);
#endif
}

// Backward is dnnl::convolution_backward_data, whose operands are (dx, w, dy), or …_weights, whose are (x, dw, dy).
template <typename Backward>
typename Backward::primitive_desc describeBackward(const Onednn& onednn, const ConvolutionShape& c,
                                                   const dnnl::primitive_attr& attr) {
  beforePrimitive();
  constexpr auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return typename Backward::primitive_desc(onednn.engine, direct, c.source, c.weights, c.destination, c.strides,
                                           c.dilation, c.padding, c.padding, describeHint(onednn, c), attr);
#else
  return typename Backward::primitive_desc(typename Backward::desc(direct, c.source, c.weights, c.destination, c.strides,
                                                                   c.dilation, c.padding, c.padding),
                                           attr, onednn.engine, describeHint(onednn, c));
#endif
}

// c [rows, columns] = a [rows, depth] · b, all row-major; b is [depth, columns], or [columns, depth] where transposed.
inline void multiply(bool transposed, int64_t rows, int64_t columns, int64_t depth, const float* a, const float* b,
                     float* c) {
  static const bool ready = (beforePrimitive(), true);  // it makes its code once
  static_cast<void>(ready);
  const dnnl_status_t status = dnnl_sgemm('N', transposed ? 'T' : 'N', rows, columns, depth, 1.F, a, depth, b,
                                          transposed ? depth : columns, 0.F, c, columns);
  if (status != dnnl_success) throw Error("dnnl_sgemm", "failed with status " + std::to_string(status));
}

}  // namespace seresnet::cpu
