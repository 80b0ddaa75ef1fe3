#pragma once
/// What `tailor tune` shows to people.

#include <string>

#include "recipes/tune.h"
#include "recipes/tune_text.h"

namespace tailor {

/// The end of a run: what was trained at what cost, what the test part says, and how to use the package.
std::string tune_result_text(const TuneSummary& summary);

/// A dry run on standard output.
void print_text_preview(const TextPreview& preview);

}  // namespace tailor
