#pragma once
/// Names of objects in JSON text that has not been parsed yet.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tailor {

/// Why `text` may not become a Json: an object of ours looks for each name among those before it, so the time that a
/// few hundred thousand names in one object take is theirs squared.
struct JsonNameFault {
  std::string name;
  bool twice = false;  // it is given twice in one object; else the comparisons had reached their bound at this name
};
/// Reads over `text` without making anything of it. With `once` names that come twice are faults, too. Wrong JSON has
/// no fault of names before the place where it is wrong.
std::optional<JsonNameFault> check_json_names(std::string_view text, std::uint64_t most_comparisons, bool once);

}  // namespace tailor
