#pragma once
/// JSON from files and lines with errors a person can use. nlohmann::ordered_json keeps the order in which we write
/// keys.

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

using Json = nlohmann::ordered_json;

/// Whether brackets outside strings are open more than `limit` deep: parsers, or what they build, recurse. Any bytes.
bool json_deeper_than(std::string_view text, int limit);

/// From a brace at the beginning of `text` to the one that closes it; empty where none does, or where it begins with
/// something else. Any bytes.
std::string_view json_object_at_front(std::string_view text);

/// What the parser says, without its own number.
std::string json_reason(const Json::exception& error);

/// Parses one document. `where` names it in the error ("manifest.json", "events line 12"). Nesting deeper than 64 is
/// refused.
Result<Json> parse_json(std::string_view text, std::string_view where);
Result<Json> read_json(const std::filesystem::path& file, std::size_t max_bytes = std::size_t{256} << 20);
/// One document per line; empty lines are skipped. With `drop_partial_last`, a last line without "\n" that does not
/// parse (a writer was killed) is left out instead of being an error.
Result<std::vector<Json>> read_jsonl(const std::filesystem::path& file, bool drop_partial_last = false);
Status write_json_atomic(const std::filesystem::path& file, const Json& value);  // two-space indent, final newline
Status append_jsonl(const std::filesystem::path& file, const Json& value);
/// Bytes that are not UTF-8 become U+FFFD, so that writing never throws.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace tailor
