#include "tune/slot_bindings.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/result.h"

namespace tailor::tune {

void SlotBindings::add(Slot& slot, std::vector<std::string> names, std::vector<std::int64_t> shape) {
  bindings_.push_back({&slot, std::move(names), std::move(shape)});
}

void SlotBindings::bind(const ParameterSet& parameters) const {
  for (const Binding& binding : bindings_) {
    const std::int64_t offset = parameters.at(binding.names[0]).offset;
    std::int64_t count = 0;
    for (const std::string& name : binding.names) {
      const Parameter& p = parameters.at(name);
      if (p.offset != offset + count)
        throw Exception({ErrorCode::kInternal, fmt::format("{} does not lie beside its neighbours", name), ""});
      count += p.value.numel();
    }
    binding.slot->value =
        parameters.flat_values().narrow(0, offset, count).view(binding.shape).detach().requires_grad_();
    binding.slot->grad = parameters.flat_grad().narrow(0, offset, count).view(binding.shape);
  }
}

}  // namespace tailor::tune
