#pragma once

#include <string>

#include "runtime/errors.h"
#include "runtime/plan.h"

namespace seresnet {

// One step of a plan with the slots it reads and fills: what an op is read from, and checked for memory safety. The
// builders of both devices are one, of the step they are at.
class StepView {
 public:
  const Step& step() const { return *step_; }
  size_t inputs() const { return step_->inputs.size(); }
  const Slot& input(size_t i) const { return viewed_.slots[step_->inputs[i]]; }
  const Slot& output(size_t i = 0) const { return viewed_.slots[step_->outputs[i]]; }

  // Throws an Error about the op unless `fits`.
  void expect(bool fits, const std::string& what) const;
  // Expects this many inputs and outputs.
  void expectArity(size_t leastInputs, size_t mostInputs, size_t outputs = 1) const;
  void expectFloats() const;

 protected:
  // The plan stays where it is; its slots may grow.
  explicit StepView(const Plan& plan) : viewed_(plan) {}

  const Step* step_ = nullptr;

 private:
  const Plan& viewed_;
};

}  // namespace seresnet
