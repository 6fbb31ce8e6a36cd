#include "step_view.h"

namespace seresnet {

void StepView::expect(bool fits, const std::string& what) const {
  if (fits) return;
  const auto shapesOf = [&](const std::vector<uint32_t>& slots) {
    std::string all;
    for (const uint32_t slot : slots) all += (all.empty() ? "" : ", ") + format(viewed_.slots[slot].shape);
    return all;
  };
  throw Error(step_->op, "expected " + what + ", got " + shapesOf(step_->inputs) + " -> " + shapesOf(step_->outputs));
}

void StepView::expectArity(size_t leastInputs, size_t mostInputs, size_t outputs) const {
  expect(inputs() >= leastInputs && inputs() <= mostInputs,
         std::to_string(leastInputs) + " to " + std::to_string(mostInputs) + " inputs");
  expect(step_->outputs.size() == outputs, std::to_string(outputs) + " outputs");
}

void StepView::expectFloats() const {
  for (const auto* slots : {&step_->inputs, &step_->outputs})
    for (const uint32_t slot : *slots) expect(isFloat(viewed_.slots[slot].dtype), "tensors of a float dtype");
}

}  // namespace seresnet
