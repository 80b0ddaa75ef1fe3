#pragma once
/// JSON Schema by its definition, for tests alone: as short as it can be, slow, and written without a look at the
/// grammar.

#include <algorithm>
#include <cmath>
#include <regex>
#include <string>

#include "core/json.h"
#include "model/utf8.h"

namespace tailor::testing {

class JsonValidator {
 public:
  explicit JsonValidator(const Json& root) : root_(root) {}
  bool valid(const Json& value) const { return valid(root_, value); }

 private:
  static std::size_t characters(const std::string& text) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < text.size(); ++count) next_code_point(text, at);
    return count;
  }

  static bool is(const Json& type, const Json& value) {
    if (type.is_array()) return std::any_of(type.begin(), type.end(), [&](const Json& t) { return is(t, value); });
    if (type == "integer") return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
    if (type == "number") return value.is_number();
    return type == value.type_name();
  }

  /// Within the escapes and classes that std::regex takes bytes for, the tests' patterns are ASCII.
  static bool matches(const std::string& pattern, const std::string& text) {
    return std::regex_search(text, std::regex(pattern, std::regex::ECMAScript));
  }

  bool valid(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    return std::all_of(schema.items().begin(), schema.items().end(),
                       [&](const auto& item) { return holds(schema, item.key(), item.value(), value); });
  }

  bool holds(const Json& schema, const std::string& key, const Json& rule, const Json& value) const {
    const auto count = [&](const Json& list) {
      return std::count_if(list.begin(), list.end(), [&](const Json& part) { return valid(part, value); });
    };
    if (key == "$ref") {
      const std::string pointer = rule.get<std::string>().substr(1);
      return valid(pointer.empty() ? root_ : root_.at(Json::json_pointer(pointer)), value);
    }
    if (key == "type") return is(rule, value);
    if (key == "enum") return std::find(rule.begin(), rule.end(), value) != rule.end();
    if (key == "const") return value == rule;
    if (key == "anyOf") return count(rule) > 0;
    if (key == "oneOf") return count(rule) == 1;
    if (key == "allOf") return count(rule) == static_cast<std::ptrdiff_t>(rule.size());
    if (value.is_number()) {
      if (key == "minimum") return value >= rule;
      if (key == "maximum") return value <= rule;
      if (key == "exclusiveMinimum") return value > rule;
      if (key == "exclusiveMaximum") return value < rule;
    }
    if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      if (key == "minLength") return characters(text) >= rule.get<std::size_t>();
      if (key == "maxLength") return characters(text) <= rule.get<std::size_t>();
      if (key == "pattern") return matches(rule.get<std::string>(), text);
    }
    if (value.is_array()) {
      if (key == "minItems") return value.size() >= rule.get<std::size_t>();
      if (key == "maxItems") return value.size() <= rule.get<std::size_t>();
      const std::size_t prefix = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
      for (std::size_t i = 0; i < value.size(); ++i) {
        if (key == "prefixItems" && i < prefix && !valid(rule[i], value[i])) return false;
        if (key == "items" && i >= prefix && !valid(rule, value[i])) return false;
      }
    }
    if (value.is_object()) {
      if (key == "minProperties") return value.size() >= rule.get<std::size_t>();
      if (key == "maxProperties") return value.size() <= rule.get<std::size_t>();
      if (key == "required")
        return std::all_of(rule.begin(), rule.end(),
                           [&](const Json& name) { return value.contains(name.get<std::string>()); });
      for (const auto& [name, member] : value.items()) {
        const bool named = schema.contains("properties") && schema["properties"].contains(name);
        if (key == "properties" && named && !valid(rule[name], member)) return false;
        if (key == "additionalProperties" && !named && !valid(rule, member)) return false;
      }
    }
    return true;
  }

  const Json& root_;
};

}  // namespace tailor::testing
