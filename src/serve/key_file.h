#pragma once
/// Keys that somebody wrote by hand, beside those of the store: a YAML or JSON file, and the environment.

#include <filesystem>
#include <vector>

#include "core/result.h"
#include "store/api_key.h"

namespace tailor {

/// The list of parse_auth_entries(). A file with secrets (not hashes) that others than its owner may read is refused.
/// An empty path: none. $TAILOR_API_KEY, where it is set, is a key "environment" of scope infer.
Result<std::vector<AuthEntry>> read_fixed_keys(const std::filesystem::path& file);

}  // namespace tailor
