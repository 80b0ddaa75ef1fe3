#pragma once
/// Keys that somebody wrote by hand, beside those of the store: a YAML or JSON file, and the environment.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/result.h"
#include "store/api_key.h"

namespace tailor {

/// The list of parse_auth_entries(), from a file that passes check_key_file(). An empty path: none. $TAILOR_API_KEY,
/// where it is set, is a key "environment" of scope infer.
Result<std::vector<AuthEntry>> read_fixed_keys(const std::filesystem::path& file);

/// Who may write a list of keys lets in whom he likes: it belongs to the server's user or to root, and nobody else may
/// write it; nor read it, where it holds secrets and not hashes alone. Ids of users as the system has them, `mode` with
/// the permission bits.
struct KeyFileAccess {
  std::uint32_t owner = 0, mode = 0;
  std::uint32_t server = 0;  // the user that reads it
  bool secrets = false;
};
Status check_key_file(const std::filesystem::path& file, const KeyFileAccess& access);

}  // namespace tailor
