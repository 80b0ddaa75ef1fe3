#pragma once
/// Rows with their labels as a file of a package: {"text", "label"} a line, labels by name.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "prompt/template.h"

namespace tailor {

Status save_demonstrations(const std::filesystem::path& file, std::span<const Demonstration> rows,
                           std::span<const std::string> labels);
/// Errors name the file: no such JSON, a label that is not among `labels`.
Result<std::vector<Demonstration>> load_demonstrations(const std::filesystem::path& file,
                                                       std::span<const std::string> labels);

}  // namespace tailor
