#pragma once

#include <functional>
#include <unordered_map>

#include "cpu/device/dnnl_adapter.h"
#include "cpu/loops/vector.h"

namespace seresnet::cpu {

// A convolution of oneDNN's with what follows it. oneDNN's own ReLU is a maximum that makes 0 of NaN, and raises the
// processor's flag for invalid operations where it does; a run that finds the flag raised is repeated with `keepsNaN`
// (backend.cc), in which the convolution is done without it and followed by a ReLU of ours. So NaN costs those who have it.
class ReluConvolution {
 public:
  // `post` makes the post-ops before the ReLU, anew each time: copies of them are the same one. Throws dnnl::error where
  // oneDNN has no such convolution.
  ReluConvolution(const Onednn& onednn, dnnl::algorithm algorithm, ConvolutionShape shape,
                  std::function<dnnl::post_ops()> post, bool relu)
      : onednn_(&onednn), algorithm_(algorithm), shape_(std::move(shape)), post_(std::move(post)), relu_(relu),
        description_(describe(relu)), primitive_(description_) {}

  const dnnl::convolution_forward::primitive_desc& description() const { return description_; }
  // Whether a run may have to be repeated.
  bool losesNaN() const { return relu_; }

  // On the executor thread; the destination's memory is among the arguments.
  void run(dnnl::stream& stream, const std::unordered_map<int, dnnl::memory>& arguments, bool keepsNaN) {
    if (keepsNaN && relu_) return runApart(stream, arguments);
    primitive_.execute(stream, arguments);
    stream.wait();
  }

 private:
  dnnl::convolution_forward::primitive_desc describe(bool relu) const {
    dnnl::post_ops post = post_();
    if (relu) appendRelu(post);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(post);
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return cpu::describe(*onednn_, algorithm_, shape_, attributes);
  }

  void runApart(dnnl::stream& stream, std::unordered_map<int, dnnl::memory> arguments) {
    if (!bare_) {
      shape_.weights = description_.weights_desc();  // they lie in its order already
      const auto description = describe(false);
      bare_ = dnnl::convolution_forward(description);
      if (description.scratchpad_desc().get_size() > 0)
        scratchpad_ = dnnl::memory(description.scratchpad_desc(), onednn_->engine);
    }
    if (scratchpad_) arguments[DNNL_ARG_SCRATCHPAD] = scratchpad_;
    bare_.execute(stream, arguments);
    stream.wait();
    const dnnl::memory& y = arguments.at(DNNL_ARG_DST);
    const bool rounded = dataTypeOf(shape_.destination) == dnnl::memory::data_type::bf16;
    const auto count = static_cast<int64_t>(shape_.destination.get_size() / (rounded ? sizeof(Bfloat16) : sizeof(float)));
    if (rounded) reluInPlace(static_cast<Bfloat16*>(y.get_data_handle()), count);
    else reluInPlace(static_cast<float*>(y.get_data_handle()), count);
  }

  const Onednn* onednn_;
  dnnl::algorithm algorithm_;
  ConvolutionShape shape_;
  std::function<dnnl::post_ops()> post_;
  bool relu_;
  dnnl::convolution_forward::primitive_desc description_;
  dnnl::convolution_forward primitive_;
  dnnl::convolution_forward bare_;  // without the ReLU, once it is needed
  dnnl::memory scratchpad_;
};

}  // namespace seresnet::cpu
