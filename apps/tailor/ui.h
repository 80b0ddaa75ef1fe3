#pragma once
/// The faces of a running fit (recipes/fit_ui.h).

#include <memory>

#include "recipes/fit_ui.h"

namespace tailor {

enum class UiKind { kAuto, kJson, kQuiet };

/// kAuto: a live display on a terminal, plain lines elsewhere. `colour` only matters on a terminal.
std::unique_ptr<FitUi> make_ui(UiKind kind);

}  // namespace tailor
