#include "kernels/update.h"

#include <algorithm>

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

// The buffers of an update; parameters, state and settings are float32 whatever the gradients are.
struct Operands {
  std::vector<BufferId> in, out;
  BufferId skip = none;
  DType gradientType;
  int64_t count;

  // One tensor's addresses in a run.
  UpdateTensor tensor(const Pointers& p) const {
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

  UpdateArguments arguments(const Pointers& p, const UpdateTensor& one) const {
    UpdateArguments all;
    all.tensors = &one;
    all.tensorCount = 1;
    all.longest = count;
    all.gradientType = gradientType;
    all.skip = p.at<float>(skip);
    return all;
  }
};

// `settled` counts the inputs that are always there.
Operands operands(Builder& b, size_t settled) {
  Operands all;
  for (size_t i = 0; i < b.inputs(); ++i) {
    if (i == 1) {
      const auto [id, dtype] = b.readVector(i);
      all.in.push_back(id);
      all.gradientType = dtype;
    } else {
      all.in.push_back(b.read(i, plainFloat));
    }
  }
  if (b.inputs() > settled) all.skip = all.in.back();
  for (size_t i = 0; i < b.step().outputs.size(); ++i) all.out.push_back(b.write(i, plainFloat));
  all.count = b.output().size();
  return all;
}

}  // namespace

// One step of PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay, skip? -> parameter, velocity.
void sgd(Builder& b) {
  expectUpdate(b, 3, 3, 2);
  const Operands o = operands(b, 6);
  b.emit("", [o, nesterov = b.step().flag("nesterov")](Stream stream, const Pointers& p) {
    const UpdateTensor one = o.tensor(p);
    SgdArguments arguments;
    arguments.update = o.arguments(p, one);
    arguments.lr = p.at<float>(o.in[3]);
    arguments.momentum = p.at<float>(o.in[4]);
    arguments.weightDecay = p.at<float>(o.in[5]);
    arguments.nesterov = nesterov;
    launchSgd(stream, arguments);
  });
}

// One step of AdamW: parameter, gradient, two moments, lr, beta1, beta2, eps, weightDecay, step, skip? -> parameter, moments.
void adamw(Builder& b) {
  expectUpdate(b, 4, 6, 3);
  const Operands o = operands(b, 10);
  b.emit("", [o](Stream stream, const Pointers& p) {
    const UpdateTensor one = o.tensor(p);
    AdamwArguments arguments;
    arguments.update = o.arguments(p, one);
    arguments.lr = p.at<float>(o.in[4]);
    arguments.beta1 = p.at<float>(o.in[5]);
    arguments.beta2 = p.at<float>(o.in[6]);
    arguments.eps = p.at<float>(o.in[7]);
    arguments.weightDecay = p.at<float>(o.in[8]);
    arguments.step = p.at<float>(o.in[9]);
    launchAdamw(stream, arguments);
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
