#include "kernels/update.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "ops.h"

namespace seresnet::cuda {

namespace {

constexpr Form plainFloat{Layout::plain, DType::float32, 0};

// `state` tensors of one shape (the second is the gradient), then `scalars` of one element and perhaps one that says, unless
// it is 0, that everything stays as it is; as many outputs as `results`.
void expectUpdate(Builder& b, size_t state, size_t scalars, size_t results) {
  b.expectArity(state + scalars, state + scalars + 1, results);
  b.expectFloats();
  for (size_t i = 0; i < state; ++i) b.expect(b.input(i).shape == b.input(0).shape, "state of the parameter's shape");
  for (size_t i = state; i < b.inputs(); ++i) b.expect(b.input(i).size() == 1, "scalar settings");
  for (size_t i = 0; i < results; ++i) b.expect(b.output(i).shape == b.input(0).shape, "results of the parameter's shape");
}

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
Updates updates(Builder& b, size_t state, size_t scalars, size_t results) {
  Updates all;
  for (size_t i = state; i < b.inputs(); ++i) all.settings.push_back(b.read(i, plainFloat));
  if (b.inputs() > state + scalars) all.skip = all.settings.back();
  do {
    expectUpdate(b, state, scalars, results);
    Tensor tensor;
    DType type{};
    for (size_t i = 0; i < state; ++i) {
      if (i == 1) std::tie(tensor.in.emplace_back(), type) = b.readVector(i);
      else tensor.in.push_back(b.read(i, plainFloat));
    }
    for (size_t i = 0; i < results; ++i) tensor.out.push_back(b.write(i, plainFloat));
    tensor.count = b.output().size();
    all.tensors[type].push_back(std::move(tensor));
  } while (b.join(state));
  for (auto& [type, those] : all.tensors)
    std::stable_sort(those.begin(), those.end(), [](const Tensor& one, const Tensor& other) { return one.count > other.count; });
  return all;
}

}  // namespace

// One step of PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay, skip? -> parameter, velocity.
void sgd(Builder& b) {
  expectUpdate(b, 3, 3, 2);
  const bool nesterov = b.step().flag("nesterov");
  b.emit("", [all = updates(b, 3, 3, 2), nesterov](Stream stream, const Pointers& p) {
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
  expectUpdate(b, 4, 6, 3);
  b.emit("", [all = updates(b, 4, 6, 3)](Stream stream, const Pointers& p) {
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

// Any number of tensors of one dtype -> 1 if one of their elements is not finite, else 0.
void foundInf(Builder& b) {
  b.expectArity(1, b.inputs());
  b.expectFloats();
  b.expect(b.output().size() == 1, "a scalar");
  std::vector<std::pair<BufferId, int64_t>> tensors;
  for (size_t i = 0; i < b.inputs(); ++i) tensors.emplace_back(b.read(i, plainFloat), b.input(i).size());
  const BufferId found = b.write(0, plainFloat);
  b.emit("", [=](Stream stream, const Pointers& p) {
    std::vector<UpdateTensor> all(tensors.size());
    FoundInfArguments arguments;
    for (size_t i = 0; i < tensors.size(); ++i) {
      all[i] = UpdateTensor{};
      all[i].gradient = p.at(tensors[i].first);
      all[i].count = tensors[i].second;
      arguments.update.longest = std::max(arguments.update.longest, tensors[i].second);
    }
    arguments.update.tensors = all.data();
    arguments.update.tensorCount = static_cast<int64_t>(all.size());
    arguments.found = p.at<float>(found);
    launchFoundInf(stream, arguments);
  });
}

}  // namespace seresnet::cuda
