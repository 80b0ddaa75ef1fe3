#pragma once
/// One value of the file or the command line, by the rules of its setting.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/setting.h"
#include "config/yaml.h"
#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// The value as the options of a run hold it; nullopt where it is of the wrong type or out of range. Numbers are read
/// whatever YAML 1.1 thinks of them (`2e-4` is one, "2e-4" in quotes is a text). `typed`: of a command line, where
/// every word is a text that may also be a number.
std::optional<Json> read_value(const Setting& setting, const YamlNode& node, bool typed = false);

/// Words "name=value" of a flag as such a map; values are read as YAML.
Result<Json> read_name_values(const std::vector<std::string>& words, std::string_view flag);

std::string expected_of(const Setting& setting);  // "a number above 0, up to 1000"
std::string seen_of(const YamlNode& node);        // "the text \"abc\"", "a list", "nothing"

std::optional<double> plain_number(const YamlNode& node);  // finite
std::optional<bool> plain_flag(const YamlNode& node);      // true/false, yes/no, on/off
/// Any value as JSON would hold it: for keys of other tools.
Json plain_json(const YamlNode& node);

}  // namespace tailor
