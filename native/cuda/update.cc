#include "kernels/update.h"

#include "ops.h"

namespace seresnet::cuda {

namespace {

constexpr Form plainFloat{Layout::plain, DType::float32, 0};

// `state` tensors of one shape (the second is the gradient), then `scalars` of one element; as many outputs as `results`.
void expectUpdate(Builder& b, size_t state, size_t scalars, size_t results) {
  b.expectArity(state + scalars, state + scalars, results);
  b.expectFloats();
  for (size_t i = 0; i < state; ++i) b.expect(b.input(i).shape == b.input(0).shape, "state of the parameter's shape");
  for (size_t i = state; i < state + scalars; ++i) b.expect(b.input(i).size() == 1, "scalar settings");
  for (size_t i = 0; i < results; ++i) b.expect(b.output(i).shape == b.input(0).shape, "results of the parameter's shape");
}

// The buffers of an update; parameters, state and settings are float32 whatever the gradients are.
struct Operands {
  std::vector<BufferId> in, out;
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

  UpdateArguments arguments(const UpdateTensor& one) const {
    UpdateArguments all;
    all.tensors = &one;
    all.tensorCount = 1;
    all.longest = count;
    all.gradientType = gradientType;
    return all;
  }
};

Operands operands(Builder& b) {
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
  for (size_t i = 0; i < b.step().outputs.size(); ++i) all.out.push_back(b.write(i, plainFloat));
  all.count = b.output().size();
  return all;
}

}  // namespace

// One step of PyTorch's SGD: parameter, gradient, velocity, lr, momentum, weightDecay -> parameter, velocity.
void sgd(Builder& b) {
  expectUpdate(b, 3, 3, 2);
  const Operands o = operands(b);
  b.emit("", [o, nesterov = b.step().flag("nesterov")](Stream stream, const Pointers& p) {
    const UpdateTensor one = o.tensor(p);
    SgdArguments arguments;
    arguments.update = o.arguments(one);
    arguments.lr = p.at<float>(o.in[3]);
    arguments.momentum = p.at<float>(o.in[4]);
    arguments.weightDecay = p.at<float>(o.in[5]);
    arguments.nesterov = nesterov;
    launchSgd(stream, arguments);
  });
}

// One step of AdamW: parameter, gradient, two moments, lr, beta1, beta2, eps, weightDecay, step -> parameter, moments.
void adamw(Builder& b) {
  expectUpdate(b, 4, 6, 3);
  const Operands o = operands(b);
  b.emit("", [o](Stream stream, const Pointers& p) {
    const UpdateTensor one = o.tensor(p);
    AdamwArguments arguments;
    arguments.update = o.arguments(one);
    arguments.lr = p.at<float>(o.in[4]);
    arguments.beta1 = p.at<float>(o.in[5]);
    arguments.beta2 = p.at<float>(o.in[6]);
    arguments.eps = p.at<float>(o.in[7]);
    arguments.weightDecay = p.at<float>(o.in[8]);
    arguments.step = p.at<float>(o.in[9]);
    launchAdamw(stream, arguments);
  });
}

}  // namespace seresnet::cuda
