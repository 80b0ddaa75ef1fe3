#pragma once
/// Which file of a model was found to be the fastest that is no worse (`tailor models optimize`).

#include <filesystem>
#include <optional>
#include <string>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// Beside imported models, by the content of the original.
std::filesystem::path optimized_record(const std::string& sha256);
Status record_optimized(const std::string& sha256, const std::filesystem::path& file, const std::string& format,
                        const Json& figures);
/// None where nothing was measured, or where the file is gone.
std::optional<std::filesystem::path> optimized_file(const std::string& sha256);

}  // namespace tailor
