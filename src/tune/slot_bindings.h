#pragma once
/// Slots of a model, and the parameters that they show once these lie in their flat buffers.

#include <cstdint>
#include <string>
#include <vector>

#include "tune/parameters.h"
#include "tune/slot.h"

namespace tailor::tune {

/// Use: add() before ParameterSet::flatten(), bind() after it. The slots stay where they are.
class SlotBindings {
 public:
  /// The slot's value is one parameter, or several that were added one after another, stacked; `shape` is of all.
  void add(Slot& slot, std::vector<std::string> names, std::vector<std::int64_t> shape);
  /// Values become leaves of autograd, gradients views of the flat gradient. Throws kInternal where parameters of one
  /// slot do not lie side by side.
  void bind(const ParameterSet& parameters) const;

 private:
  struct Binding {
    Slot* slot;
    std::vector<std::string> names;
    std::vector<std::int64_t> shape;
  };
  std::vector<Binding> bindings_;
};

}  // namespace tailor::tune
