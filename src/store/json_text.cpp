#include "store/json_text.h"

#include <fmt/format.h>

namespace tailor {

Result<std::string> json_text(const Json& value, std::string_view what, std::size_t most) {
  std::string text = dump_json(value);
  if (text.size() > most) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} has {} bytes; the limit is {}", what, text.size(), most),
                 ""};
  }
  const auto again = parse_json(text, what);
  if (!again) return Error{ErrorCode::kInvalidArgument, again.error().message, again.error().hint};
  return text;
}

}  // namespace tailor
