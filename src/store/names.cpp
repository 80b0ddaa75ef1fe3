#include "store/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "core/json.h"

namespace tailor {
namespace {

bool name_character(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("._:@-").find(c) != std::string_view::npos;
}

/// As it may stand in an error: short and printable, whatever somebody sent.
std::string shown(std::string_view text) {
  const std::string quoted = dump_json(Json(std::string(text.substr(0, 64))));
  return text.size() > 64 ? quoted + "…" : quoted;
}

}  // namespace

Status check_name(std::string_view name, std::string_view what) {
  const bool good = !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), name_character) &&
                    name.find("..") == std::string_view::npos && name.front() != '.' && name.front() != '-';
  if (good) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} is not a {}", shown(name), what),
               "use 1 to 128 letters, digits and . _ : @ - ; no \"..\", and no . or - in front"};
}

Status check_label(std::string_view label, std::string_view what, std::size_t most) {
  const bool plain = std::none_of(label.begin(), label.end(),
                                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  const bool utf8 = dump_json(Json(std::string(label))).find("\xEF\xBF\xBD") == std::string::npos;
  if (!label.empty() && label.size() <= most && plain && utf8) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} is not a {}", shown(label), what),
               fmt::format("use 1 to {} bytes of UTF-8 without control characters", most)};
}

}  // namespace tailor
