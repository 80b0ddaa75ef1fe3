#include "infer/schema_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "infer/json_grammar.h"
#include "infer/number_range.h"
#include "infer/object_grammar.h"
#include "infer/regex_grammar.h"
#include "infer/schema_formats.h"
#include "infer/schema_merge.h"

namespace tailor {
namespace {

constexpr std::size_t kLargestSchema = 256 << 10;
constexpr int kDeepestSchema = 64;
constexpr std::size_t kMostProperties = 1000;
// Where any of them may come next all are tried: twice as many cost four times as much.
constexpr std::size_t kMostOptional = 256;
constexpr std::size_t kMostValues = 10'000;   // of enum
constexpr std::size_t kMostSchemas = 20'000;  // read, those behind references once each time they are merged
constexpr std::size_t kLongestName = 512;
constexpr std::size_t kMostPrefixItems = 64;
constexpr int kMostItems = 100'000;
constexpr int kLongestString = 1'000'000;
constexpr int kLongestMinimum = 1000;  // of a string: each character that must be there is a rule
constexpr const char* kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

bool is_deeper_than(const Json& value, int depth) {
  if (!value.is_structured()) return false;
  return depth == 0 ||
         std::any_of(value.begin(), value.end(), [depth](const Json& part) { return is_deeper_than(part, depth - 1); });
}

class SchemaReader {
 public:
  SchemaReader(const Json& root, Grammar& grammar) : root_(root), grammar_(grammar), json_(grammar), flattener_(root) {}

  Result<GrammarExpr> possible(const Json& schema, const std::string& path, int depth) {
    TAILOR_TRY(GrammarExpr expr, read(schema, path, depth));
    if (is_nothing(expr))
      return schema_error(path, "", "no value is allowed here",
                          "look for false, or for constraints that contradict one another");
    return expr;
  }

 private:
  Result<GrammarExpr> read(const Json& schema, const std::string& path, int depth);
  Status check_keywords(const Json& schema, const std::string& path) const;
  Result<GrammarExpr> reference(const Json& uri, const std::string& path, int depth);
  Result<GrammarExpr> branches(const Json& schema, const char* keyword, const std::string& path, int depth);
  Result<GrammarExpr> values(const Json& schema, const std::string& path);
  Result<std::vector<std::string>> types(const Json& schema, const std::string& path) const;
  Result<GrammarExpr> of_type(const std::string& type, const Json& schema, const std::string& path, int depth);
  Result<GrammarExpr> number(bool integer, const Json& schema, const std::string& path);
  Result<GrammarExpr> string(const Json& schema, const std::string& path);
  Result<GrammarExpr> array(const Json& schema, const std::string& path, int depth);
  Result<GrammarExpr> object(const Json& schema, const std::string& path, int depth);
  Result<std::vector<ObjectMember>> members(const Json& schema, const std::string& path, int depth);

  /// A count such as "minItems"; none where it is not there. At most `most`.
  Result<std::optional<int>> count(const Json& schema, const char* keyword, const std::string& path, int most) const;
  Result<std::pair<int, int>> counts(const Json& schema, const char* least, const char* greatest,
                                     const std::string& path, int most) const;
  /// Of what is written so far. Each step checks it: what one step adds is bounded.
  Status check_size(const std::string& path) const;
  GrammarExpr rule_of(GrammarExpr expr) { return grammar_.rule_of(std::move(expr)); }

  const Json& root_;
  Grammar& grammar_;
  JsonGrammar json_;
  SchemaFlattener flattener_;
  std::map<const Json*, std::size_t> references_;  // rules of what was referred to
  std::set<const Json*> open_;                     // read at this moment, and nothing was written since
  std::map<std::tuple<std::string, int, int>, GrammarExpr> patterns_;  // with their lengths
  AutomatonBudget budget_;                                             // of all patterns
  std::size_t schemas_ = 0, properties_ = 0, values_ = 0;
  std::size_t plain_weight_ = 0;  // of enumerations, which stand in no rule of their own
};

Status SchemaReader::check_size(const std::string& path) const {
  const Status checked = check_weight(std::max(grammar_.weight(), plain_weight_));
  return checked ? Status() : schema_error(path, "", checked.error().message, checked.error().hint);
}

Status SchemaReader::check_keywords(const Json& schema, const std::string& path) const {
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword == "nullable" && value == false) continue;
    if (keyword == "nullable")
      return schema_error(path, keyword, "is OpenAPI's and is not enforced", "add \"null\" to \"type\"");
    if (keyword == "$id" && &schema != &root_)
      return schema_error(path, keyword, "is only supported at the top of a schema");
    if (keyword == "uniqueItems" && value != false)
      return schema_error(path, keyword, "cannot be enforced", "leave it out and check the answer");
    if (keyword == "unevaluatedProperties" && !value.is_boolean())
      return schema_error(path, keyword, "can only be true or false here", "use \"additionalProperties\"");
    if (role_of(keyword) == KeywordRole::kRefused) {
      return schema_error(path, keyword, "is not enforced, so the schema is refused",
                          "leave it out, or check the answer yourself");
    }
  }
  if (schema.contains("anyOf") && schema.contains("oneOf"))
    return schema_error(path, "oneOf", "cannot be enforced beside anyOf");
  return {};
}

Result<GrammarExpr> SchemaReader::read(const Json& schema, const std::string& path, int depth) {
  if (++schemas_ > kMostSchemas)
    return schema_error(path, "", fmt::format("more than {} schemas are to be read", kMostSchemas),
                        "use \"$ref\" alone rather than within allOf");
  if (depth > kDeepestSchema)
    return schema_error(path, "", fmt::format("schemas are nested deeper than {}", kDeepestSchema));
  TAILOR_CHECK(check_size(path));
  if (schema == true) return json_.value();
  if (schema == false) return nothing();
  if (!schema.is_object()) return schema_error(path, "", "a schema must be an object or a boolean");
  TAILOR_CHECK(check_keywords(schema, path));
  if (schema.contains("$ref") && !constrains(schema, "$ref")) return reference(schema["$ref"], path, depth);
  if (schema.contains("allOf") && schema["allOf"].is_array() && schema["allOf"].size() == 1 &&
      !constrains(schema, "allOf")) {
    return read(schema["allOf"][0], path + ".allOf[0]", depth + 1);  // keeps a reference a rule
  }
  if (schema.contains("$ref") || schema.contains("allOf")) {
    TAILOR_TRY(const Json flat, flattener_.flat(schema, path));
    return read(flat, path, depth + 1);
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) return branches(schema, keyword, path, depth);
  }
  if (schema.contains("enum") || schema.contains("const")) return values(schema, path);
  TAILOR_TRY(const std::vector<std::string> all, types(schema, path));
  if (all.empty()) return json_.value();
  std::vector<GrammarExpr> ways;
  for (const std::string& type : all) {
    TAILOR_TRY(GrammarExpr way, of_type(type, schema, path, depth));
    if (!is_nothing(way)) ways.push_back(std::move(way));
  }
  return choice(std::move(ways));
}

Result<GrammarExpr> SchemaReader::reference(const Json& uri, const std::string& path, int depth) {
  TAILOR_TRY(const Json* target, follow_reference(root_, uri, path));
  if (open_.contains(target))
    return schema_error(path, "$ref", fmt::format("{} leads to itself before any text is written", uri.dump()));
  if (const auto it = references_.find(target); it != references_.end()) return Grammar::refer(it->second);
  const std::size_t rule = grammar_.add_rule();
  references_[target] = rule;
  open_.insert(target);
  TAILOR_TRY(GrammarExpr body, read(*target, path, depth + 1));
  open_.erase(target);
  const bool impossible = is_nothing(body);
  grammar_.define(rule, std::move(body));
  return impossible ? nothing() : Grammar::refer(rule);
}

Result<GrammarExpr> SchemaReader::branches(const Json& schema, const char* keyword, const std::string& path,
                                           int depth) {
  const Json& list = schema[keyword];
  if (!list.is_array() || list.empty()) return schema_error(path, keyword, "must be a list of schemas");
  Json base = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (key != keyword && role_of(key) != KeywordRole::kAnnotation) base[key] = value;
  }
  const bool plain = base.empty();
  std::vector<GrammarExpr> ways;
  std::vector<Json> flat;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}.{}[{}]", path, keyword, i);
    if (list[i].is_object()) TAILOR_CHECK(check_keywords(list[i], at));
    Json merged;
    if (!plain || std::string_view(keyword) == "oneOf") {
      TAILOR_TRY(Json own, flattener_.flat(list[i], at));
      if (!plain) {
        TAILOR_TRY(merged, flattener_.merged(base, own, at));
      }
      flat.push_back(std::move(own));
    }
    TAILOR_TRY(GrammarExpr way, read(plain ? list[i] : merged, at, depth + 1));
    if (!is_nothing(way)) ways.push_back(std::move(way));
  }
  if (std::string_view(keyword) == "oneOf") {
    if (flat.size() > 100) return schema_error(path, keyword, "has more than 100 branches", "use \"anyOf\"");
    for (std::size_t i = 0; i < flat.size(); ++i) {
      for (std::size_t k = i + 1; k < flat.size(); ++k) {
        TAILOR_TRY(const bool apart, disjoint_schemas(flattener_, flat[i], flat[k], path));
        if (!apart) {
          return schema_error(
              path, keyword, fmt::format("branches {} and {} may allow the same value, which cannot be enforced", i, k),
              "use \"anyOf\", or give each branch a required property with a \"const\" of its own");
        }
      }
    }
  }
  return choice(std::move(ways));
}

Result<GrammarExpr> SchemaReader::values(const Json& schema, const std::string& path) {
  const auto annotates = [](const std::string& keyword, const Json& value) {
    if (keyword == "format") return value.is_string() && !format_pattern(value.get_ref<const std::string&>());
    return role_of(keyword) == KeywordRole::kAnnotation || keyword == "nullable";
  };
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword != "enum" && keyword != "const" && keyword != "type" && !annotates(keyword, value)) {
      return schema_error(path, keyword, "is not enforced beside enum or const",
                          "leave out the values that it forbids");
    }
  }
  Json allowed = schema.contains("enum") ? schema["enum"] : Json::array({schema["const"]});
  if (!allowed.is_array() || allowed.empty()) return schema_error(path, "enum", "must be a list of values");
  values_ += allowed.size();
  if (values_ > kMostValues)
    return schema_error(path, "enum", fmt::format("the schema lists more than {} values", kMostValues));
  TAILOR_TRY(const std::vector<std::string> all, types(schema, path));
  const std::string only = schema.contains("const") ? value_key(schema["const"]) : "";
  std::vector<std::string> plain;
  std::vector<GrammarExpr> ways;
  for (const Json& value : allowed) {
    if (!only.empty() && value_key(value) != only) continue;
    if (schema.contains("type") &&
        std::none_of(all.begin(), all.end(), [&](const std::string& type) { return has_type(value, type); }))
      continue;
    if (value.is_structured() && !value.empty()) {
      ways.push_back(rule_of(json_.literal(value)));
      TAILOR_CHECK(check_size(path));
    } else {
      plain.push_back(value.dump());
    }
  }
  if (!plain.empty()) {
    ways.push_back(any_text_of(std::move(plain)));
    plain_weight_ += weight_of(ways.back());
    TAILOR_CHECK(check_size(path));
  }
  return choice(std::move(ways));
}

/// As "type" says, or else as the other keywords show; empty: all.
Result<std::vector<std::string>> SchemaReader::types(const Json& schema, const std::string& path) const {
  std::vector<std::string> out;
  const auto add = [&](const std::string& type) {
    if (std::find(out.begin(), out.end(), type) == out.end()) out.push_back(type);
  };
  if (!schema.contains("type")) {
    for (const auto& [keyword, value] : schema.items()) {
      if (const std::string_view type = type_of_keyword(keyword); !type.empty()) add(std::string(type));
    }
    return out;
  }
  const Json& type = schema["type"];
  for (const Json& name : type.is_array() ? type : Json::array({type})) {
    if (!name.is_string() ||
        std::find(std::begin(kTypes), std::end(kTypes), name.get<std::string>()) == std::end(kTypes)) {
      return schema_error(path, "type", fmt::format("{} is no type of JSON", name.dump()));
    }
    add(name.get<std::string>());
  }
  if (out.empty()) return schema_error(path, "type", "no type is allowed");
  return out;
}

Result<GrammarExpr> SchemaReader::of_type(const std::string& type, const Json& schema, const std::string& path,
                                          int depth) {
  if (type == "null") return text_of("null");
  if (type == "boolean") return choice({text_of("true"), text_of("false")});
  if (type == "number" || type == "integer") return number(type == "integer", schema, path);
  if (type == "string") return string(schema, path);
  // What stands within brackets may lead back to what is open: a bracket was written.
  std::set<const Json*> outside;
  outside.swap(open_);
  auto inside = type == "array" ? array(schema, path, depth) : object(schema, path, depth);
  outside.swap(open_);
  return inside;
}

Result<std::optional<int>> SchemaReader::count(const Json& schema, const char* keyword, const std::string& path,
                                               int most) const {
  if (!schema.contains(keyword)) return std::optional<int>();
  const Json& value = schema[keyword];
  if (!has_type(value, "integer") || value.get<double>() < 0)
    return schema_error(path, keyword, "must be a whole number that is not negative");
  if (value.get<double>() > most)
    return schema_error(path, keyword, fmt::format("is above {}, the most that is enforced", most));
  return std::optional<int>(value.get<int>());
}

Result<std::pair<int, int>> SchemaReader::counts(const Json& schema, const char* least, const char* greatest,
                                                 const std::string& path, int most) const {
  TAILOR_TRY(const std::optional<int> low, count(schema, least, path, most));
  TAILOR_TRY(const std::optional<int> high, count(schema, greatest, path, most));
  if (low && high && *low > *high)
    return schema_error(path, least, fmt::format("is above {} ({} > {})", greatest, *low, *high));
  return std::pair(low.value_or(0), high.value_or(kNoMaximum));
}

Result<GrammarExpr> SchemaReader::number(bool integer, const Json& schema, const std::string& path) {
  for (const char* keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
    if (schema.contains(keyword) && !schema[keyword].is_number())
      return schema_error(path, keyword, "must be a number");
  }
  NumberRange range{.integer = integer};
  const auto set = [&](const char* keyword, std::optional<Json>& bound, bool& open, bool exclusive, bool lower) {
    if (!schema.contains(keyword)) return;
    const Json& value = schema[keyword];
    const bool tighter = !bound || (lower ? value > *bound : value < *bound) || (exclusive && value == *bound);
    if (!tighter) return;
    bound = value;
    open = exclusive;
  };
  set("minimum", range.low, range.low_open, false, true);
  set("exclusiveMinimum", range.low, range.low_open, true, true);
  set("maximum", range.high, range.high_open, false, false);
  set("exclusiveMaximum", range.high, range.high_open, true, false);
  if (!range.low && !range.high) return integer ? json_.integer() : json_.number();
  auto numbers = numbers_in(range);
  if (!numbers)
    return schema_error(path,
                        range.low ? (range.low_open ? "exclusiveMinimum" : "minimum")
                                  : (range.high_open ? "exclusiveMaximum" : "maximum"),
                        numbers.error().message, numbers.error().hint);
  return rule_of(std::move(*numbers));
}

Result<GrammarExpr> SchemaReader::string(const Json& schema, const std::string& path) {
  TAILOR_TRY(const auto length, counts(schema, "minLength", "maxLength", path, kLongestString));
  if (length.first > kLongestMinimum)
    return schema_error(path, "minLength", fmt::format("is above {}, the most that is enforced", kLongestMinimum));
  const bool has_pattern = schema.contains("pattern");
  std::optional<std::string_view> format;
  if (schema.contains("format")) {
    if (!schema["format"].is_string()) return schema_error(path, "format", "must be a string");
    format = format_pattern(schema["format"].get_ref<const std::string&>());
  }
  if (!format && !has_pattern) return json_.string(length.first, length.second);
  if (format && has_pattern) return schema_error(path, "pattern", "cannot be enforced beside this format");
  const char* keyword = has_pattern ? "pattern" : "format";
  if (has_pattern && !schema["pattern"].is_string()) return schema_error(path, keyword, "must be a string");
  const std::string pattern = format ? std::string(*format) : schema["pattern"].get<std::string>();
  GrammarExpr& known = patterns_[{pattern, length.first, length.second}];
  if (known != nullptr) return known;
  auto matching = add_regex_string(grammar_, pattern, length.first, length.second, budget_);
  if (!matching) return schema_error(path, keyword, matching.error().message, matching.error().hint);
  return known = *std::move(matching);
}

Result<GrammarExpr> SchemaReader::array(const Json& schema, const std::string& path, int depth) {
  TAILOR_TRY(const auto length, counts(schema, "minItems", "maxItems", path, kMostItems));
  const auto [least, greatest] = length;
  std::vector<GrammarExpr> prefix;
  const Json none = Json::array();
  const Json& listed = schema.contains("prefixItems") ? schema["prefixItems"] : none;
  if (!listed.is_array()) return schema_error(path, "prefixItems", "must be a list of schemas");
  if (listed.size() > kMostPrefixItems)
    return schema_error(path, "prefixItems", fmt::format("has more than {} schemas", kMostPrefixItems));
  for (std::size_t i = 0; i < listed.size() && (greatest == kNoMaximum || i < static_cast<std::size_t>(greatest));
       ++i) {
    TAILOR_TRY(GrammarExpr item, read(listed[i], fmt::format("{}.prefixItems[{}]", path, i), depth + 1));
    if (is_nothing(item)) break;  // the array must end before it
    prefix.push_back(rule_of(std::move(item)));
  }
  const bool whole = prefix.size() == listed.size();
  GrammarExpr further = nothing();
  const bool closed =
      schema.contains("prefixItems") && !schema.contains("items") && static_cast<std::size_t>(least) <= prefix.size();
  if (whole && !closed) {
    if (schema.contains("items") && schema["items"].is_array())
      return schema_error(path, "items", "is a list, as in drafts before 2020-12", "use \"prefixItems\"");
    TAILOR_TRY(further, schema.contains("items") ? read(schema["items"], path + ".items", depth + 1)
                                                 : Result<GrammarExpr>(json_.value()));
  }
  const auto known = static_cast<int>(prefix.size());
  if (is_nothing(further) && least > known)
    return schema_error(path, "minItems", fmt::format("asks for {} items where at most {} are allowed", least, known));
  if (!is_nothing(further)) further = rule_of(std::move(further));
  if (greatest == 0) return text_of("[]");
  // From the last item back: what follows position i.
  GrammarExpr rest = text_of("");
  if (!is_nothing(further) && (greatest == kNoMaximum || greatest > known)) {
    const int more = greatest == kNoMaximum ? kNoMaximum : greatest - known;
    if (known == 0) {
      GrammarExpr items = json_.brackets(json_.list(further, std::max(least, 1), more));
      return least == 0 ? choice({text_of("[]"), std::move(items)}) : items;
    }
    rest = repeat(rule_of(sequence({json_.comma(), further})), std::max(least - known, 0), more);
  }
  if (known == 0) return text_of("[]");
  for (int i = known; i-- > 1;) {
    rest = sequence({json_.comma(), prefix[static_cast<std::size_t>(i)], std::move(rest)});
    if (i >= least) rest = optional(std::move(rest));
  }
  GrammarExpr items = json_.brackets(sequence({prefix[0], std::move(rest)}));
  return least == 0 ? choice({text_of("[]"), std::move(items)}) : items;
}

Result<std::vector<ObjectMember>> SchemaReader::members(const Json& schema, const std::string& path, int depth) {
  const Json none = Json::object();
  const Json& listed = schema.contains("properties") ? schema["properties"] : none;
  if (!listed.is_object()) return schema_error(path, "properties", "must be an object");
  const Json required = schema.contains("required") ? schema["required"] : Json::array();
  if (!required.is_array() ||
      std::any_of(required.begin(), required.end(), [](const Json& name) { return !name.is_string(); })) {
    return schema_error(path, "required", "must be a list of names");
  }
  std::set<std::string> wanted;
  for (const Json& name : required) wanted.insert(name.get<std::string>());
  std::vector<ObjectMember> out;
  const auto add = [&](const std::string& name, GrammarExpr expr, const std::string& at) -> Status {
    if (++properties_ > kMostProperties)
      return schema_error(path, "properties", fmt::format("the schema has more than {} properties", kMostProperties));
    if (name.size() > kLongestName)
      return schema_error(path, "properties", fmt::format("a name is longer than {} bytes", kLongestName));
    const bool must = wanted.contains(name);
    if (is_nothing(expr) && must) return schema_error(at, "", "is required, but no value is allowed for it");
    if (!is_nothing(expr))
      out.push_back({name, sequence({text_of(Json(name).dump()), json_.colon(), std::move(expr)}), must});
    return {};
  };
  for (const auto& [name, value] : listed.items()) {
    const std::string at = path + ".properties." + name;
    TAILOR_TRY(GrammarExpr expr, read(value, at, depth + 1));
    TAILOR_CHECK(add(name, std::move(expr), at));
  }
  const Json rest = schema.value("additionalProperties", Json(true));
  const std::string rest_path = path + ".additionalProperties";
  GrammarExpr further;  // read for the first that is not listed
  for (const std::string& name : wanted) {
    if (listed.contains(name)) continue;
    if (rest == false)
      return schema_error(path, "required", fmt::format("\"{}\" is required, but not among the properties", name));
    if (further == nullptr) {
      TAILOR_TRY(further, read(rest, rest_path, depth + 1));
      if (!is_nothing(further)) further = rule_of(std::move(further));
    }
    TAILOR_CHECK(add(name, further, rest_path));
  }
  return out;
}

Result<GrammarExpr> SchemaReader::object(const Json& schema, const std::string& path, int depth) {
  TAILOR_TRY(const auto size, counts(schema, "minProperties", "maxProperties", path, kMostItems));
  const auto [least, greatest] = size;
  TAILOR_TRY(const std::vector<ObjectMember> named, members(schema, path, depth));
  std::vector<std::string> names;  // that further members may not have
  for (const ObjectMember& member : named) names.push_back(member.name);
  if (schema.contains("properties")) {
    for (const auto& [name, value] : schema["properties"].items()) names.push_back(name);
  }
  const bool open = names.empty() && schema.value("unevaluatedProperties", Json(true)) != false;
  const Json rest = schema.value("additionalProperties", Json(open));
  TAILOR_TRY(GrammarExpr further, read(rest, path + ".additionalProperties", depth + 1));
  if (!is_nothing(further)) {
    auto name = names.empty() ? Result<GrammarExpr>(json_.string()) : json_.string_other_than(names);
    if (!name) return schema_error(path, "additionalProperties", name.error().message, name.error().hint);
    further = rule_of(sequence({*std::move(name), json_.colon(), std::move(further)}));
  }
  if (named.size() > kMostOptional &&
      std::any_of(named.begin(), named.end(), [](const ObjectMember& m) { return !m.required; })) {
    return schema_error(path, "properties",
                        fmt::format("has more than {} of which some may be left out", kMostOptional),
                        "name all of them under \"required\"");
  }
  const auto must =
      static_cast<int>(std::count_if(named.begin(), named.end(), [](const ObjectMember& m) { return m.required; }));
  if (greatest != kNoMaximum && greatest < must)
    return schema_error(path, "maxProperties", fmt::format("is below the {} properties that are required", must));
  if (named.empty()) {
    if (is_nothing(further) && least > 0)
      return schema_error(path, "minProperties", "asks for members where none is allowed");
    if (is_nothing(further) || greatest == 0) return text_of("{}");
    // A name may come twice: then two members are one.
    if (least > 1)
      return schema_error(path, "minProperties", "is not enforced above 1", "name the members under \"properties\"");
    GrammarExpr all = json_.braces(json_.list(further, 1, greatest));
    return least == 0 ? choice({text_of("{}"), std::move(all)}) : all;
  }
  const bool counted = greatest != kNoMaximum && (!is_nothing(further) || greatest < static_cast<int>(named.size()));
  if (counted)
    return schema_error(path, "maxProperties",
                        "is not enforced beside \"properties\" that may be left out or added to");
  if (least > std::max(must, 1))
    return schema_error(path, "minProperties", "is not enforced beside \"properties\" that may be left out",
                        "use \"required\"");
  GrammarExpr all = object_grammar(grammar_, json_, named, further);
  return must == 0 && least == 0 ? choice({text_of("{}"), std::move(all)}) : all;
}

}  // namespace

Status check_schema_depth(const Json& schema, const std::string& where) {
  if (!is_deeper_than(schema, kDeepestSchema)) return {};
  return schema_error(where, "", fmt::format("is nested deeper than {}", kDeepestSchema));
}

Result<Grammar> schema_grammar(const Json& schema, const std::string& where) {
  TAILOR_CHECK(check_schema_depth(schema, where));
  if (dump_json(schema).size() > kLargestSchema)
    return schema_error(where, "", fmt::format("is larger than {} KiB", kLargestSchema >> 10));
  Grammar grammar;
  TAILOR_TRY(GrammarExpr whole, SchemaReader(schema, grammar).possible(schema, where, 0));
  grammar.define(0, std::move(whole));
  return grammar;
}

Grammar json_object_grammar() {
  Grammar grammar;
  JsonGrammar json(grammar);
  grammar.define(0, json.object());
  return grammar;
}

}  // namespace tailor
