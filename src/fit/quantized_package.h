#pragma once
/// The deployment file of a package: its model in fewer bits than it was made with.

#include <filesystem>
#include <string_view>

#include "core/result.h"

namespace tailor {

/// Puts a copy of the model whose matrices are of `type` (model/requantize.h) in the place of the model of a finished
/// package, which must hold it. What the package was measured to answer no longer holds: it has to be asked again.
/// Errors: kInvalidArgument for a package without a model or an unknown type, and those of requantize(); they leave
/// the package's model as it was.
Status quantize_package(const std::filesystem::path& package, std::string_view type, int threads);

}  // namespace tailor
