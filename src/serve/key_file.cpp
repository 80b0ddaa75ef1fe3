#include "serve/key_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdlib>

#include "config/value.h"
#include "config/yaml.h"

namespace tailor {

Result<std::vector<AuthEntry>> read_fixed_keys(const std::filesystem::path& file) {
  std::vector<AuthEntry> entries;
  if (!file.empty()) {
    TAILOR_TRY(const YamlNode root, read_yaml(file));
    const Json list = plain_json(root);
    TAILOR_TRY(entries, parse_auth_entries(list, file.string()));
    bool secrets = false;
    for (const Json& entry : list) secrets |= entry.contains("key");
    struct stat status {};
    if (secrets && stat(file.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("keys {}: others than its owner may read it (mode {:03o})", file.string(),
                               status.st_mode & 0777U),
                   fmt::format("run: chmod 600 {}", file.string())};
    }
  }
  if (const char* secret = std::getenv("TAILOR_API_KEY"); secret != nullptr && *secret != 0) {
    TAILOR_TRY(AuthEntry entry, AuthEntry::from_secret({.id = "environment", .name = "$TAILOR_API_KEY"}, secret));
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace tailor
