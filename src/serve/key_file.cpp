#include "serve/key_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "config/value.h"
#include "config/yaml.h"
#include "core/files.h"
#include "store/descriptor.h"

namespace tailor {
namespace {

/// Up to one byte more than a file of settings may have.
Result<std::string> read_bytes(int fd, const std::filesystem::path& file) {
  std::string bytes;
  char chunk[4096];
  while (bytes.size() <= kMaxYamlBytes) {
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("cannot read", file, errno);
    bytes.append(chunk, static_cast<std::size_t>(n));
  }
  return bytes;
}

/// What is read and what is looked at are one file, whatever is renamed meanwhile.
Result<std::vector<AuthEntry>> read_key_file(const std::filesystem::path& file) {
  const Descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (opened.get() < 0) return io_error("cannot open", file, errno);
  struct stat status {};
  if (fstat(opened.get(), &status) != 0) return io_error("cannot look at", file, errno);
  TAILOR_TRY(const std::string text, read_bytes(opened.get(), file));
  TAILOR_TRY(const YamlNode root, parse_yaml(text, file.string()));
  const Json list = plain_json(root);
  TAILOR_TRY(auto entries, parse_auth_entries(list, file.string()));
  KeyFileAccess access{.owner = status.st_uid, .mode = status.st_mode & 0777U, .server = geteuid()};
  for (const Json& entry : list) access.secrets |= entry.contains("key");
  TAILOR_CHECK(check_key_file(file, access));
  return entries;
}

}  // namespace

Status check_key_file(const std::filesystem::path& file, const KeyFileAccess& access) {
  const auto refused = [&](const std::string& why, const std::string& hint) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("keys {}: {}", file.string(), why), hint};
  };
  if (access.owner != access.server && access.owner != 0) {
    return refused(fmt::format("it belongs to another user ({}; the server runs as {})", access.owner, access.server),
                   fmt::format("run: chown {} {}", access.server, file.string()));
  }
  if (access.secrets && (access.mode & 077) != 0) {
    return refused(fmt::format("others than its owner may read it (mode {:03o})", access.mode),
                   fmt::format("run: chmod 600 {}", file.string()));
  }
  if ((access.mode & 022) != 0) {
    return refused(fmt::format("others than its owner may write it (mode {:03o})", access.mode),
                   fmt::format("run: chmod go-w {}", file.string()));
  }
  return {};
}

Result<std::vector<AuthEntry>> read_fixed_keys(const std::filesystem::path& file) {
  std::vector<AuthEntry> entries;
  if (!file.empty()) {
    TAILOR_TRY(entries, read_key_file(file));
  }
  if (const char* secret = std::getenv("TAILOR_API_KEY"); secret != nullptr && *secret != 0) {
    TAILOR_TRY(AuthEntry entry, AuthEntry::from_secret({.id = "environment", .name = "$TAILOR_API_KEY"}, secret));
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace tailor
