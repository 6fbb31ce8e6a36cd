#include "cuda/kernels/update.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "ops.h"
#include "ops/update.h"

namespace seresnet::cuda {

namespace {

constexpr Form plainFloat{Layout::plain, DType::float32, 0};

// The buffers of one tensor's update; parameters, state and settings are float32 whatever the gradients are.
struct Tensor {
  std::vector<BufferId> in, out;
  int64_t count;

  UpdateTensor at(const Pointers& p) const {
    UpdateTensor all{};
    all.parameter = p.at<float>(in[0]);
    all.gradient = p.at(in[1]);
    all.newParameter = p.at<float>(out[0]);
    for (size_t i = 1; i < out.size(); ++i) {
      all.state[i - 1] = p.at<float>(in[1 + i]);
      all.newState[i - 1] = p.at<float>(out[i]);
    }
    all.count = count;
    return all;
  }
};

// Updates with the same settings, which are launched together.
struct Updates {
  std::map<DType, std::vector<Tensor>> tensors;  // by their gradients' dtype, large ones first
  std::vector<BufferId> settings;
  BufferId skip = none;

  // Calls launch(arguments) for the tensors of each dtype.
  template <typename Launch>
  void each(const Pointers& p, const Launch& launch) const {
    for (const auto& [type, those] : tensors) {
      std::vector<UpdateTensor> all;
      for (const Tensor& tensor : those) all.push_back(tensor.at(p));
      UpdateArguments arguments;
      arguments.tensors = all.data();
      arguments.tensorCount = static_cast<int64_t>(all.size());
      arguments.longest = those[0].count;
      arguments.gradientType = type;
      arguments.skip = p.at<float>(skip);
      launch(arguments);
    }
  }
};

// The current step and those after it that update other tensors in the same way.
template <typename Op>
Updates updates(Builder& b, const Op& op) {
  Updates all;
  for (size_t i = op.state; i < b.inputs(); ++i) all.settings.push_back(b.read(i, plainFloat));
  if (op.skips) all.skip = all.settings.back();
  do {
    const Op each(b);
    Tensor tensor;
    DType type{};
    for (size_t i = 0; i < each.state; ++i) {
      if (i == 1) std::tie(tensor.in.emplace_back(), type) = b.readVector(i);
      else tensor.in.push_back(b.read(i, plainFloat));
    }
    for (size_t i = 0; i < b.step().outputs.size(); ++i) tensor.out.push_back(b.write(i, plainFloat));
    tensor.count = b.output().size();
    all.tensors[type].push_back(std::move(tensor));
  } while (b.join(op.state));
  for (auto& [type, those] : all.tensors)
    std::stable_sort(those.begin(), those.end(), [](const Tensor& one, const Tensor& other) { return one.count > other.count; });
  return all;
}

}  // namespace

// One step of PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay, skip? -> parameter, velocity.
void sgd(Builder& b) {
  const ops::Sgd op(b);
  b.emit("", [all = updates(b, op), nesterov = op.nesterov](Stream stream, const Pointers& p) {
    all.each(p, [&](const UpdateArguments& update) {
      SgdArguments arguments;
      arguments.update = update;
      arguments.lr = p.at<float>(all.settings[0]);
      arguments.momentum = p.at<float>(all.settings[1]);
      arguments.weightDecay = p.at<float>(all.settings[2]);
      arguments.nesterov = nesterov;
      launchSgd(stream, arguments);
    });
  });
}

// One step of AdamW: parameter, gradient, two moments, lr, beta1, beta2, eps, weightDecay, step, skip? -> parameter, moments.
void adamw(Builder& b) {
  b.emit("", [all = updates(b, ops::Adamw(b))](Stream stream, const Pointers& p) {
    all.each(p, [&](const UpdateArguments& update) {
      AdamwArguments arguments;
      arguments.update = update;
      arguments.lr = p.at<float>(all.settings[0]);
      arguments.beta1 = p.at<float>(all.settings[1]);
      arguments.beta2 = p.at<float>(all.settings[2]);
      arguments.eps = p.at<float>(all.settings[3]);
      arguments.weightDecay = p.at<float>(all.settings[4]);
      arguments.step = p.at<float>(all.settings[5]);
      launchAdamw(stream, arguments);
    });
  });
}

namespace {

// Tensors that are read, and perhaps written, all at once.
struct Tensors {
  std::vector<BufferId> in, out;
  std::vector<int64_t> counts;

  static Tensors of(Builder& b, size_t count) {
    Tensors all;
    for (size_t i = 0; i < count; ++i) {
      all.in.push_back(b.read(i));
      all.counts.push_back(b.input(i).size());
    }
    return all;
  }
  int64_t longest() const { return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end()); }

  // Calls launch(arguments).
  template <typename Launch>
  void all(const Pointers& p, DType type, const Launch& launch) const {
    std::vector<UpdateTensor> tensors(in.size());
    for (size_t i = 0; i < in.size(); ++i) {
      tensors[i] = UpdateTensor{};
      tensors[i].gradient = p.at(in[i]);
      tensors[i].scaled = out.empty() ? nullptr : p.at(out[i]);
      tensors[i].count = counts[i];
    }
    UpdateArguments arguments;
    arguments.tensors = tensors.data();
    arguments.tensorCount = static_cast<int64_t>(tensors.size());
    arguments.longest = longest();
    arguments.gradientType = type;
    launch(arguments);
  }
};

// Any number of tensors -> a scalar, all of one dtype.
Tensors readAll(Builder& b) {
  ops::checkScalarOfAll(b);
  b.expectOneDtype();
  return Tensors::of(b, b.inputs());
}

}  // namespace

// 1 if an element is not finite, else 0
void foundInf(Builder& b) {
  const Tensors tensors = readAll(b);
  const BufferId found = b.write(0, plainFloat);
  b.emit("", [=, type = b.inputType(0)](Stream stream, const Pointers& p) {
    tensors.all(p, type, [&](const UpdateArguments& update) { launchFoundInf(stream, {update, p.at<float>(found)}); });
  });
}

// the Euclidean norm of all elements
void globalNorm(Builder& b) {
  const Tensors tensors = readAll(b);
  const auto count = static_cast<int64_t>(b.inputs());
  const BufferId workspace = b.scratch(globalNormWorkspace(count, tensors.longest()));
  const BufferId norm = b.write(0, plainFloat);
  b.emit("", [=, type = b.inputType(0)](Stream stream, const Pointers& p) {
    tensors.all(p, type, [&](const UpdateArguments& update) {
      launchGlobalNorm(stream, {update, p.at<float>(norm), p.at(workspace)});
    });
  });
}

// Any number of tensors of one dtype and a float32 factor -> each times the factor
void scale(Builder& b) {
  const size_t count = ops::Scale(b).count;
  for (size_t i = 0; i < count; ++i)
    b.expect(b.inputType(i) == b.inputType(0) && b.outputType(i) == b.inputType(0), "tensors of one float dtype");
  Tensors tensors = Tensors::of(b, count);
  const BufferId factor = b.read(count, plainFloat);
  for (size_t i = 0; i < count; ++i) tensors.out.push_back(b.write(i));
  b.emit("", [=, type = b.inputType(0)](Stream stream, const Pointers& p) {
    tensors.all(p, type, [&](const UpdateArguments& update) { launchScale(stream, {update, p.at<float>(factor)}); });
  });
}

// Any number of tensors, as many others of their shapes and a weight -> x + weight * (other - x) for each, in float32
void lerp(Builder& b) {
  const size_t count = ops::Lerp(b).count;
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < count; ++i)
    tensors.push_back({{b.read(i, plainFloat), b.read(count + i, plainFloat)}, {b.write(i, plainFloat)}, b.input(i).size()});
  const BufferId weight = b.read(2 * count, plainFloat);
  b.emit("", [=](Stream stream, const Pointers& p) {
    std::vector<UpdateTensor> all;
    LerpArguments arguments;
    for (const Tensor& tensor : tensors) {
      all.push_back(tensor.at(p));
      arguments.update.longest = std::max(arguments.update.longest, tensor.count);
    }
    arguments.update.tensors = all.data();
    arguments.update.tensorCount = static_cast<int64_t>(all.size());
    arguments.weight = p.at<float>(weight);
    launchLerp(stream, arguments);
  });
}

}  // namespace seresnet::cuda
