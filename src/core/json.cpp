#include "core/json.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_names.h"

namespace tailor {

namespace {

/// Calls seen(character, place) for what stands outside of strings, until it returns true; whether it did.
template <typename Seen>
bool scan_outside_strings(std::string_view text, const Seen& seen) {
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (seen(c, i)) {
      return true;
    }
  }
  return false;
}

Result<Json> parse(std::string_view text, std::string_view where, bool any_names) {
  constexpr std::size_t kShort = 16 << 10;  // the bytes that a few thousand names take
  constexpr std::uint64_t kMostComparisons = 1 << 28;
  if (json_deeper_than(text, 64))
    return Error{ErrorCode::kCorruptData, fmt::format("{}: JSON is nested deeper than 64", where), ""};
  if (!any_names && text.size() > kShort) {
    if (const auto fault = check_json_names(text, kMostComparisons, false))
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: one object has more names than can be read, up to '{}'", where, fault->name), ""};
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {  // syntax, or a number that no double holds
    return Error{ErrorCode::kCorruptData, fmt::format("{}: not valid JSON: {}", where, json_reason(error)), ""};
  }
}

}  // namespace

bool json_deeper_than(std::string_view text, int limit) {
  int depth = 0;
  return scan_outside_strings(text, [&](char c, std::size_t) {
    if (c == '[' || c == '{') return ++depth > limit;
    if (c == ']' || c == '}') --depth;
    return false;
  });
}

std::string_view json_object_at_front(std::string_view text) {
  if (!text.starts_with('{')) return {};
  int depth = 0;
  std::size_t end = 0;
  const bool closed = scan_outside_strings(text, [&](char c, std::size_t i) {
    if (c == '{') ++depth;
    end = i + 1;
    return c == '}' && --depth == 0;
  });
  return closed ? text.substr(0, end) : std::string_view();
}

std::string json_reason(const Json::exception& error) {
  std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
  if (const auto bracket = reason.find("] "); bracket != std::string::npos) reason.erase(0, bracket + 2);
  return reason;
}

Result<Json> parse_json(std::string_view text, std::string_view where) {
  return parse(text, where, false);
}

Result<Json> read_json(const std::filesystem::path& file, std::size_t max_bytes) {
  TAILOR_TRY(const std::string text, read_file(file, max_bytes));
  return parse(text, file.string(), true);
}

Result<std::vector<Json>> read_jsonl(const std::filesystem::path& file, bool drop_partial_last) {
  TAILOR_TRY(const std::string text, read_file(file));
  std::vector<Json> values;
  const auto keep = [&](Json value, std::uint32_t) -> Status {
    values.push_back(std::move(value));
    return {};
  };
  TAILOR_CHECK(each_json_line(text, file.string(), keep, drop_partial_last));
  return values;
}

Status each_json_line(std::string_view text, std::string_view where, const TakeJsonLine& take, bool drop_partial_last) {
  std::uint32_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const bool complete = end < text.size();
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto value = parse_json(line, fmt::format("{}:{}", where, number));
    if (!value) {
      if (!complete && drop_partial_last) break;
      return value.error();
    }
    TAILOR_CHECK(take(std::move(*value), number));
  }
  return {};
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Status write_json_atomic(const std::filesystem::path& file, const Json& value) {
  return write_file_atomic(file, dump_json(value, 2) + "\n");
}

Status append_jsonl(const std::filesystem::path& file, const Json& value) {
  return append_line(file, dump_json(value));
}

}  // namespace tailor
