#include "config/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "config/foreign_keys.h"
#include "config/setting.h"
#include "config/translation.h"

namespace tailor {
namespace {

Json range_of(const Setting& s, const char* type) {
  Json out{{"type", type}};
  const auto edge = [&](const char* closed, const char* open, double value, bool is_open) {
    if (!std::isfinite(value)) return;
    out[is_open ? open : closed] = std::floor(value) == value ? Json(static_cast<std::int64_t>(value)) : Json(value);
  };
  edge("minimum", "exclusiveMinimum", s.low, s.open_low);
  edge("maximum", "exclusiveMaximum", s.high, s.open_high);
  return out;
}

Json one_or_list(const Setting& s) {
  const Json text{{"type", "string"}, {"minLength", 1}};
  const int least = s.may_be_empty ? 0 : 1;
  return Json{{"anyOf", Json::array({text, Json{{"type", "array"}, {"items", text}, {"minItems", least}}})}};
}

Json type_of(const Setting& s) {
  if (s.key == "method") {
    Json names = Json::array();
    for (const MethodPart& method : method_parts()) names.push_back(method.method);
    return Json{{"enum", names}};
  }
  switch (s.kind) {
    case ValueKind::kNumber:
      return range_of(s, "number");
    case ValueKind::kWhole:
      return range_of(s, "integer");
    case ValueKind::kFlag:
      return Json{{"type", "boolean"}};
    case ValueKind::kText:
      return Json{{"type", "string"}, {"minLength", 1}};
    case ValueKind::kCharacter:
      return Json{{"anyOf", Json::array({Json{{"type", "string"}, {"minLength", 1}, {"maxLength", 1}},
                                         Json{{"const", "tab"}}})}};
    case ValueKind::kChoice:
      return Json{{"enum", s.choices}};
    case ValueKind::kTexts:
    case ValueKind::kNames:
      return one_or_list(s);
    case ValueKind::kWholes:
      return Json{{"type", "array"}, {"items", range_of(s, "integer")}, {"minItems", 1}};
    case ValueKind::kValues:
      return Json{{"type", "object"},
                  {"patternProperties", Json{{"^[A-Za-z_][A-Za-z0-9_]*$", Json::object()}}},
                  {"additionalProperties", false},
                  {"minProperties", 1}};
  }
  return Json::object();
}

/// A value that is left empty is as if it were not there.
Json or_nothing(Json type, std::string description) {
  return Json{{"description", std::move(description)},
              {"anyOf", Json::array({std::move(type), Json{{"type", "null"}}})}};
}

std::string describe(const Setting& s) {
  return std::string(s.summary) + (s.usual.empty() ? "" : fmt::format(" ({})", s.usual));
}

/// "from 1 to 10", "mean, cls": what the value may be, for people.
std::string values_of(const Setting& s) {
  const auto edge = [](double value) { return fmt::format("{}", value); };
  const auto range = [&] {
    if (!std::isfinite(s.low)) return std::string();
    return fmt::format(" {}{}, {}{}", s.open_low ? "(" : "[", edge(s.low), edge(s.high), s.open_high ? ")" : "]");
  };
  switch (s.kind) {
    case ValueKind::kNumber:
      return "number" + range();
    case ValueKind::kWhole:
      return "whole number" + range();
    case ValueKind::kFlag:
      return "true, false";
    case ValueKind::kText:
      return "text";
    case ValueKind::kCharacter:
      return "one character, `tab`";
    case ValueKind::kChoice:
      return fmt::format("`{}`", fmt::join(s.choices, "`, `"));
    case ValueKind::kTexts:
      return "text, or a list";
    case ValueKind::kNames:
      return "name, or a list";
    case ValueKind::kWholes:
      return "list of whole numbers";
    case ValueKind::kValues:
      return "map of names to values";
  }
  return "";
}

}  // namespace

Json tune_config_schema() {
  Json properties = Json::object(), patterns = Json::object();
  for (const Setting& s : tune_settings()) {
    const Json property = or_nothing(type_of(s), describe(s));
    properties[std::string(s.key)] = property;
    if (const std::size_t dot = s.key.find('.'); dot != std::string_view::npos) {
      Json& section = properties[std::string(s.key.substr(0, dot))];
      if (section.is_null()) {
        section = or_nothing(Json{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}},
                             std::string(title_of(s.section)));
      }
      section["anyOf"][0]["properties"][std::string(s.key.substr(dot + 1))] = property;
    }
    for (const Alias& alias : s.aliases)
      properties[std::string(alias.name)] = or_nothing(type_of(s), fmt::format("{} of {}", s.key, alias.tools));
  }
  for (const Translation& t : translations()) {
    Json type = Json::parse(t.schema);
    Json& property = properties[std::string(t.name)];
    if (property.is_null())
      property = or_nothing(std::move(type), fmt::format("{}; of {}", t.becomes, t.tools));
    else
      property["anyOf"].push_back(std::move(type));  // `adapter`, ours as a map
  }
  for (const ForeignKey& key : foreign_keys()) {
    Json property{{"description", fmt::format("of {}: {}", key.tools, key.what)}};
    if (!key.any_value) {
      Json values = Json::array({nullptr, "", Json::array(), Json::object()});
      for (const Json& neutral : key.neutral) values.push_back(neutral);
      property["enum"] = std::move(values);
    }
    if (key.name.ends_with('*'))
      patterns["^" + std::string(key.name.substr(0, key.name.size() - 1))] = std::move(property);
    else
      properties[std::string(key.name)] = std::move(property);
  }
  return Json{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
              {"title", "Settings of `tailor tune --config FILE`"},
              {"type", Json::array({"object", "null"})},
              {"properties", std::move(properties)},
              {"patternProperties", std::move(patterns)},
              {"additionalProperties", false}};
}

std::string tune_config_tables() {
  std::string out;
  const Section* open = nullptr;
  for (const Setting& s : tune_settings()) {
    if (open == nullptr || *open != s.section) {
      open = &s.section;
      out += fmt::format(
          "{}### {}\n\n| key | values | when absent | flag | meaning | names of other tools |\n"
          "| --- | --- | --- | --- | --- | --- |\n",
          out.empty() ? "" : "\n", title_of(s.section));
    }
    std::string aliases;
    for (const Alias& alias : s.aliases)
      aliases += fmt::format("{}`{}` ({})", aliases.empty() ? "" : ", ", alias.name, alias.tools);
    std::string flag(s.flag);
    if (flag == "data")
      flag = "first argument";
    else if (!flag.empty())
      flag = "`" + flag.substr(0, flag.find(',')) + "`";
    out += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", s.key, values_of(s), s.usual, flag, s.summary, aliases);
  }
  out += "\n### Keys of other tools that are translated\n\n| key | tool | becomes |\n| --- | --- | --- |\n";
  for (const Translation& t : translations()) out += fmt::format("| `{}` | {} | {} |\n", t.name, t.tools, t.becomes);
  const auto list = [&](bool any_value) {
    for (std::size_t i = 0; i < foreign_keys().size();) {
      const ForeignKey& first = foreign_keys()[i];
      std::string names;
      for (; i < foreign_keys().size() && foreign_keys()[i].what.data() == first.what.data() &&
             foreign_keys()[i].neutral == first.neutral;
           ++i)
        names += fmt::format("{}`{}`", names.empty() ? "" : ", ", foreign_keys()[i].name);
      if (first.any_value != any_value) continue;
      std::string neutral;
      for (const Json& value : first.neutral)
        neutral += fmt::format("{}`{}`", neutral.empty() ? "" : ", ", dump_json(value));
      out += any_value ? fmt::format("| {} | {} |\n", names, first.what)
                       : fmt::format("| {} | {} | {} |\n", names, neutral.empty() ? "nothing" : neutral, first.what);
    }
  };
  out += "\n### Accepted with a note: they change nothing here\n\n| keys | why |\n| --- | --- |\n";
  list(true);
  out +=
      "\n### Accepted only where they say what holds here anyway\n\n| keys | accepted | otherwise |\n| --- | --- | --- "
      "|\n";
  list(false);
  return out;
}

}  // namespace tailor
