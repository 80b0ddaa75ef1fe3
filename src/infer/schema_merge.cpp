#include "infer/schema_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

namespace tailor {
namespace {

constexpr std::size_t kMostSteps = 1'000'000;  // values that are copied
constexpr int kLongestChain = 64;              // of references and of allOf within allOf

struct Keyword {
  std::string_view name;
  KeywordRole role;
  std::string_view type;  // of the values that it speaks of; empty: all
};

constexpr auto kAnnotation = KeywordRole::kAnnotation;
constexpr auto kEnforced = KeywordRole::kEnforced;
constexpr auto kRefused = KeywordRole::kRefused;

constexpr Keyword kKeywords[] = {
    {"title", kAnnotation, ""},
    {"description", kAnnotation, ""},
    {"default", kAnnotation, ""},
    {"example", kAnnotation, ""},
    {"examples", kAnnotation, ""},
    {"$comment", kAnnotation, ""},
    {"$schema", kAnnotation, ""},
    {"$id", kAnnotation, ""},
    {"$defs", kAnnotation, ""},
    {"definitions", kAnnotation, ""},
    {"deprecated", kAnnotation, ""},
    {"readOnly", kAnnotation, ""},
    {"writeOnly", kAnnotation, ""},
    {"contentEncoding", kAnnotation, ""},
    {"contentMediaType", kAnnotation, ""},
    {"contentSchema", kAnnotation, ""},
    {"discriminator", kAnnotation, ""},  // OpenAPI's hint for readers; oneOf beside it says what is allowed
    {"externalDocs", kAnnotation, ""},
    {"xml", kAnnotation, ""},
    {"type", kEnforced, ""},
    {"enum", kEnforced, ""},
    {"const", kEnforced, ""},
    {"anyOf", kEnforced, ""},
    {"oneOf", kEnforced, ""},
    {"allOf", kEnforced, ""},
    {"$ref", kEnforced, ""},
    {"minimum", kEnforced, "number"},
    {"maximum", kEnforced, "number"},
    {"exclusiveMinimum", kEnforced, "number"},
    {"exclusiveMaximum", kEnforced, "number"},
    {"minLength", kEnforced, "string"},
    {"maxLength", kEnforced, "string"},
    {"pattern", kEnforced, "string"},
    {"format", kEnforced, "string"},
    {"items", kEnforced, "array"},
    {"prefixItems", kEnforced, "array"},
    {"minItems", kEnforced, "array"},
    {"maxItems", kEnforced, "array"},
    {"uniqueItems", kEnforced, "array"},  // only false is
    {"properties", kEnforced, "object"},
    {"required", kEnforced, "object"},
    {"additionalProperties", kEnforced, "object"},
    {"unevaluatedProperties", kEnforced, "object"},
    {"minProperties", kEnforced, "object"},
    {"maxProperties", kEnforced, "object"},
};

const Keyword* find(std::string_view name) {
  const auto* it =
      std::find_if(std::begin(kKeywords), std::end(kKeywords), [&](const Keyword& k) { return k.name == name; });
  return it == std::end(kKeywords) ? nullptr : it;
}

Json as_list(const Json& type) {
  return type.is_array() ? type : Json::array({type});
}

/// A whole number is written as one; what no integer holds differs from all integers.
std::string number_key(const Json& value) {
  if (!value.is_number_float()) return value.dump();
  const double number = value.get<double>();
  if (std::floor(number) != number) return fmt::format("{}", number);
  if (number >= -0x1p63 && number < 0x1p63) return fmt::format("{}", static_cast<std::int64_t>(number));
  if (number >= 0 && number < 0x1p64) return fmt::format("{}", static_cast<std::uint64_t>(number));
  return fmt::format("{}", number);
}

std::set<std::string> keys_of(const Json& values) {
  std::set<std::string> keys;
  for (const Json& value : values) keys.insert(value_key(value));
  return keys;
}

/// Of types.
bool contains(const Json& list, const Json& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

/// Of two lists of types: "integer" is what "integer" and "number" have in common.
Json common_types(const Json& a, const Json& b) {
  Json out = Json::array();
  for (const Json& type : as_list(a)) {
    if (contains(as_list(b), type) || (type == "integer" && contains(as_list(b), "number"))) {
      out.push_back(type);
    } else if (type == "number" && contains(as_list(b), "integer")) {
      out.push_back("integer");
    }
  }
  return out;
}

Json both(const Json& a, const Json& b) {
  return Json{{"allOf", Json::array({a, b})}};
}

Result<std::string> decoded(std::string_view part, const std::string& path) {
  std::string out;
  const Error broken = schema_error(path, "$ref", "is no JSON pointer");
  for (std::size_t at = 0; at < part.size(); ++at) {
    if (part[at] == '%') {
      unsigned value = 0;
      const char* begin = part.data() + at + 1;
      if (at + 2 >= part.size() || std::from_chars(begin, begin + 2, value, 16).ptr != begin + 2) return broken;
      out += static_cast<char>(value);
      at += 2;
    } else {
      out += part[at];
    }
  }
  std::string plain;
  for (std::size_t at = 0; at < out.size(); ++at) {
    if (out[at] != '~') {
      plain += out[at];
    } else if (at + 1 < out.size() && (out[at + 1] == '0' || out[at + 1] == '1')) {
      plain += out[++at] == '0' ? '~' : '/';
    } else {
      return broken;
    }
  }
  return plain;
}

/// Properties of `from` under what `rest` says of properties that it does not name.
void restrict(Json& properties, const Json& rest_schema, const Json& named) {
  for (auto& [name, schema] : properties.items()) {
    if (named.contains(name)) continue;
    if (rest_schema == false) schema = false;
    if (rest_schema.is_object()) schema = both(schema, rest_schema);
  }
}

std::size_t count_values(const Json& value) {
  std::size_t count = 1;
  if (value.is_structured()) {
    for (const Json& part : value) count += count_values(part);
  }
  return count;
}

const Json& properties_of(const Json& schema) {
  static const Json kEmpty = Json::object();
  return schema.is_object() && schema.contains("properties") ? schema["properties"] : kEmpty;
}

/// What it costs to add b's members to those of a, in values that are copied: each name is compared with all before it.
std::size_t look_ups(const Json& a, const Json& b) {
  constexpr std::size_t kNamesForAValue = 64;
  return (a.size() + b.size()) * b.size() / kNamesForAValue;
}

void merge_properties(Json& a, const Json& b) {
  Json mine = properties_of(a), theirs = properties_of(b);
  if (!mine.is_object() || !theirs.is_object()) return;  // refused where it is read
  const Json my_names = mine, their_names = theirs;
  if (b.contains("additionalProperties")) restrict(mine, b["additionalProperties"], their_names);
  if (a.contains("additionalProperties")) restrict(theirs, a["additionalProperties"], my_names);
  for (const auto& [name, schema] : theirs.items()) {
    mine[name] = mine.contains(name) ? both(mine[name], schema) : schema;
  }
  if (a.contains("properties") || b.contains("properties")) a["properties"] = std::move(mine);
  if (!b.contains("additionalProperties")) return;
  const Json& rest = b["additionalProperties"];
  if (!a.contains("additionalProperties") || a["additionalProperties"] == true) {
    a["additionalProperties"] = rest;
  } else if (rest == false) {
    a["additionalProperties"] = false;
  } else if (rest != true && a["additionalProperties"] != false) {
    a["additionalProperties"] = both(a["additionalProperties"], rest);
  }
}

}  // namespace

KeywordRole role_of(std::string_view keyword) {
  if (const Keyword* known = find(keyword)) return known->role;
  return keyword.starts_with("x-") ? kAnnotation : kRefused;
}

std::string_view type_of_keyword(std::string_view keyword) {
  const Keyword* known = find(keyword);
  return known == nullptr ? std::string_view() : known->type;
}

bool constrains(const Json& schema, std::string_view except) {
  if (!schema.is_object()) return schema != true;
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword != except && role_of(keyword) != kAnnotation) return true;
  }
  return false;
}

Error schema_error(const std::string& path, std::string_view keyword, std::string_view what, std::string_view hint) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}{}{}: {}", path, keyword.empty() ? "" : ".", keyword, what),
          std::string(hint)};
}

bool has_type(const Json& value, std::string_view type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "number") return value.is_number();
  if (type == "integer")
    return value.is_number_integer() ||
           (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
  return false;
}

std::string value_key(const Json& value) {
  if (value.is_number()) return number_key(value);
  if (!value.is_structured()) return dump_json(value);
  std::string key(1, value.is_object() ? '{' : '[');
  if (value.is_object()) {
    std::map<std::string, const Json*> members;
    for (const auto& [name, member] : value.items()) members[name] = &member;
    for (const auto& [name, member] : members) key += dump_json(Json(name)) + ':' + value_key(*member) + ',';
  } else {
    for (const Json& item : value) key += value_key(item) + ',';
  }
  return key + (value.is_object() ? '}' : ']');
}

Result<const Json*> follow_reference(const Json& root, const Json& reference, const std::string& path) {
  if (!reference.is_string()) return schema_error(path, "$ref", "must be a string");
  std::string_view uri = reference.get_ref<const std::string&>();
  if (uri != "#" && !uri.starts_with("#/")) {
    return schema_error(path, "$ref", fmt::format("\"{}\" is not within this schema", uri), "refer to \"#/$defs/…\"");
  }
  const Json* at = &root;
  uri.remove_prefix(1);
  while (!uri.empty()) {
    const std::size_t end = std::min(uri.find('/', 1), uri.size());
    TAILOR_TRY(const std::string part, decoded(uri.substr(1, end - 1), path));
    uri.remove_prefix(end);
    std::size_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    if (at->is_object() && at->contains(part)) {
      at = &(*at)[part];
    } else if (at->is_array() && parsed.ec == std::errc() && parsed.ptr == part.data() + part.size() &&
               index < at->size()) {
      at = &(*at)[index];
    } else {
      return schema_error(path, "$ref", fmt::format("{} names nothing", reference.dump()));
    }
  }
  if (!at->is_object() && !at->is_boolean())
    return schema_error(path, "$ref", fmt::format("{} names no schema", reference.dump()));
  return at;
}

Result<Json> SchemaFlattener::flat(const Json& schema, const std::string& path) {
  return flat_at(schema, path, 0);
}

Result<Json> SchemaFlattener::flat_at(const Json& schema, const std::string& path, int depth) {
  if (depth > kLongestChain) return schema_error(path, "", "references or allOf refer to themselves");
  if ((steps_ += count_values(schema)) > kMostSteps)
    return schema_error(path, "", "the schema grows too large when its references and allOf are followed");
  if (schema.is_boolean()) return schema;
  if (!schema.is_object()) return schema_error(path, "", "a schema must be an object or a boolean");
  if (schema.contains("$id") && &schema != &root_) {
    return schema_error(path, "$id", "is only supported at the top of a schema");
  }
  Json out = schema;
  for (const char* keyword : {"$ref", "allOf", "$id", "$defs", "definitions"}) out.erase(keyword);
  if (schema.contains("$ref")) {
    TAILOR_TRY(const Json* target, follow_reference(root_, schema["$ref"], path));
    TAILOR_TRY(Json more, flat_at(*target, path, depth + 1));
    TAILOR_TRY(out, merged(more, out, path));
  }
  if (schema.contains("allOf")) {
    const Json& parts = schema["allOf"];
    if (!parts.is_array() || parts.empty()) return schema_error(path, "allOf", "must be a list of schemas");
    for (std::size_t i = 0; i < parts.size(); ++i) {
      TAILOR_TRY(const Json more, flat_at(parts[i], fmt::format("{}.allOf[{}]", path, i), depth + 1));
      TAILOR_TRY(out, merged(out, more, path));
    }
  }
  return out;
}

Result<Json> SchemaFlattener::merged(const Json& a, const Json& b, const std::string& path) {
  steps_ += count_values(a) + look_ups(a, b) + look_ups(properties_of(a), properties_of(b));
  if (steps_ > kMostSteps)
    return schema_error(path, "", "the schema grows too large when its references and allOf are followed");
  if (a == false || b == false) return Json(false);
  if (a == true) return b;
  if (b == true) return a;
  Json out = a;
  merge_properties(out, b);
  static constexpr std::string_view kLargerWins[] = {"minimum", "exclusiveMinimum", "minLength", "minItems",
                                                     "minProperties"};
  static constexpr std::string_view kSmallerWins[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems",
                                                      "maxProperties"};
  const auto among = [](const auto& list, std::string_view key) {
    return std::find(std::begin(list), std::end(list), key) != std::end(list);
  };
  for (const auto& [key, theirs] : b.items()) {
    if (key == "properties" || key == "additionalProperties") continue;
    if (!out.contains(key)) {
      out[key] = theirs;
      continue;
    }
    Json& mine = out[key];
    if (role_of(key) == kAnnotation || value_key(mine) == value_key(theirs)) continue;
    if (key == "type") {
      mine = common_types(mine, theirs);
      if (mine.empty()) return Json(false);
    } else if (among(kLargerWins, key) && mine.is_number() && theirs.is_number()) {
      mine = std::max(mine, theirs);
    } else if (among(kSmallerWins, key) && mine.is_number() && theirs.is_number()) {
      mine = std::min(mine, theirs);
    } else if (key == "required" && mine.is_array() && theirs.is_array()) {
      std::set<std::string> names = keys_of(mine);
      for (const Json& name : theirs) {
        if (names.insert(value_key(name)).second) mine.push_back(name);
      }
    } else if (key == "enum" && mine.is_array() && theirs.is_array()) {
      Json shared = Json::array();
      const std::set<std::string> others = keys_of(theirs);
      for (const Json& value : mine) {
        if (others.contains(value_key(value))) shared.push_back(value);
      }
      if (shared.empty()) return Json(false);
      mine = std::move(shared);
    } else if (key == "const") {
      return Json(false);
    } else if (key == "items" && !out.contains("prefixItems") && !b.contains("prefixItems")) {
      mine = both(mine, theirs);
    } else if (key == "unevaluatedProperties" && mine.is_boolean() && theirs.is_boolean()) {
      mine = false;
    } else {
      return schema_error(path, key, "two of them apply to the same value, which cannot be enforced",
                          "write one schema that says both");
    }
  }
  if (out.contains("prefixItems") && (a.contains("prefixItems") != b.contains("prefixItems")) &&
      (a.contains("items") || b.contains("items"))) {
    return schema_error(path, "prefixItems", "another schema for the same array cannot be enforced beside it",
                        "write one schema that says both");
  }
  return out;
}

Result<bool> disjoint_schemas(SchemaFlattener& flattener, const Json& a, const Json& b, const std::string& path,
                              int depth) {
  if (a == false || b == false) return true;
  if (!a.is_object() || !b.is_object() || depth > 4) return false;
  const auto values = [](const Json& schema) {
    return schema.contains("const") ? Json::array({schema["const"]}) : schema.value("enum", Json());
  };
  const auto types = [](const Json& schema) { return schema.contains("type") ? as_list(schema["type"]) : Json(); };
  const Json va = values(a), vb = values(b), ta = types(a), tb = types(b);
  const auto none_of_type = [](const Json& list, const Json& of) {
    return list.is_array() && of.is_array() && std::none_of(list.begin(), list.end(), [&](const Json& value) {
             return std::any_of(of.begin(), of.end(), [&](const Json& type) {
               return type.is_string() && has_type(value, type.get<std::string>());
             });
           });
  };
  if (va.is_array() && vb.is_array()) {
    const std::set<std::string> others = keys_of(vb);
    return std::none_of(va.begin(), va.end(), [&](const Json& value) { return others.contains(value_key(value)); });
  }
  if (none_of_type(va, tb) || none_of_type(vb, ta)) return true;
  if (ta.is_array() && tb.is_array() && common_types(ta, tb).empty()) return true;
  const Json object = Json::array({"object"});
  if (ta != object || tb != object) return false;
  for (const auto& [mine, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    const Json required = mine->value("required", Json::array());
    if (!required.is_array()) return false;
    for (const Json& name : required) {
      if (!name.is_string()) return false;
      const auto& key = name.get_ref<const std::string&>();
      const Json none = Json::object();
      const Json& theirs = other->contains("properties") ? (*other)["properties"] : none;
      if (!theirs.is_object()) return false;
      if (!theirs.contains(key)) {
        if (other->value("additionalProperties", Json()) == false) return true;  // one demands what the other forbids
        continue;
      }
      const Json& ours = mine->contains("properties") ? (*mine)["properties"] : none;
      if (!ours.is_object() || !ours.contains(key)) continue;
      TAILOR_TRY(const Json left, flattener.flat(ours[key], path));
      TAILOR_TRY(const Json right, flattener.flat(theirs[key], path));
      // The property must be there in `mine`; in `other` it may be missing, but not in a value that both allow.
      TAILOR_TRY(const bool apart, disjoint_schemas(flattener, left, right, path, depth + 1));
      if (apart) return true;
    }
  }
  return false;
}

}  // namespace tailor
