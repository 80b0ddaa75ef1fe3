#include "apps/tailor/arguments.h"

#include <fmt/format.h>

#include <cctype>
#include <cstdlib>
#include <utility>
#include <vector>

namespace tailor {
namespace {

struct Quantity {
  double number;
  std::string unit;
};

/// "1h30m" -> {1, "h"}, {30, "m"}; false where that is not what the text is.
bool split_quantities(const std::string& text, std::vector<Quantity>& out) {
  const char* at = text.c_str();
  while (*at != 0) {
    if (std::isdigit(static_cast<unsigned char>(*at)) == 0 && *at != '.') return false;
    char* end = nullptr;
    const double number = std::strtod(at, &end);
    if (end == at) return false;
    std::string unit;
    for (; *end != 0 && (std::isalpha(static_cast<unsigned char>(*end)) != 0 || *end == ' '); ++end) {
      if (*end != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*end)));
    }
    out.push_back({number, unit});
    at = end;
  }
  return !out.empty();
}

}  // namespace

Result<double> parse_duration(const std::string& text) {
  const Error bad{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a duration", text),
                  "write 90s, 15m, 2h or 1h30m"};
  std::vector<Quantity> parts;
  if (!split_quantities(text, parts)) return bad;
  double seconds = 0;
  for (const auto& [number, unit] : parts) {
    if (unit.empty() || unit == "s" || unit == "sec")
      seconds += number;
    else if (unit == "m" || unit == "min")
      seconds += 60 * number;
    else if (unit == "h")
      seconds += 3600 * number;
    else if (unit == "d")
      seconds += 86'400 * number;
    else
      return bad;
  }
  if (seconds <= 0)
    return Error{ErrorCode::kInvalidArgument, fmt::format("a duration of \"{}\" leaves no time", text),
                 "write 90s, 15m, 2h or 1h30m"};
  return seconds;
}

Result<std::uint64_t> parse_bytes(const std::string& text) {
  const Error bad{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a size", text),
                  "write 500MB, 4GiB or a number of bytes"};
  std::vector<Quantity> parts;
  if (!split_quantities(text, parts) || parts.size() != 1) return bad;
  static const std::pair<const char*, double> kUnits[] = {
      {"", 1},     {"b", 1},           {"k", 1e3}, {"kb", 1e3}, {"kib", 1024},        {"m", 1e6},
      {"mb", 1e6}, {"mib", 1048576.0}, {"g", 1e9}, {"gb", 1e9}, {"gib", 1073741824.0}};
  for (const auto& [name, factor] : kUnits) {
    if (parts[0].unit == name) return static_cast<std::uint64_t>(parts[0].number * factor);
  }
  return bad;
}

Result<double> parse_milliseconds(const std::string& text) {
  std::vector<Quantity> parts;
  if (split_quantities(text, parts) && parts.size() == 1) {
    if (parts[0].unit.empty() || parts[0].unit == "ms") return parts[0].number;
    if (parts[0].unit == "s") return 1000 * parts[0].number;
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a latency", text), "write 20ms or 1.5s"};
}

}  // namespace tailor
