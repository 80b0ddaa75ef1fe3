#pragma once
/// JSON schemas in short, and the tables that openapi.cpp joins.

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "serve/api_context.h"

namespace tailor::openapi {

using Fields = std::vector<std::pair<std::string, Json>>;

inline Json said(Json schema, const char* text) {
  if (*text != 0) schema["description"] = text;
  return schema;
}
inline Json ref(const std::string& name) {
  return {{"$ref", "#/components/schemas/" + name}};
}
inline Json string(const char* text = "") {
  return said({{"type", "string"}}, text);
}
inline Json boolean(const char* text = "", bool usual = false) {
  return said({{"type", "boolean"}, {"default", usual}}, text);
}
inline Json integer(const char* text = "") {
  return said({{"type", "integer"}}, text);
}
inline Json integer(const char* text, std::int64_t least, std::int64_t most) {
  return said({{"type", "integer"}, {"minimum", least}, {"maximum", most}}, text);
}
inline Json number(const char* text = "") {
  return said({{"type", "number"}}, text);
}
inline Json number(const char* text, double least, double most, double usual) {
  return said({{"type", "number"}, {"minimum", least}, {"maximum", most}, {"default", usual}}, text);
}
inline Json one_of(std::initializer_list<const char*> values, const char* text = "") {
  Json list = Json::array();
  for (const char* value : values) list.push_back(value);
  return said({{"type", "string"}, {"enum", std::move(list)}}, text);
}
inline Json constant(const char* value) {
  return {{"type", "string"}, {"const", value}};
}
inline Json list(Json items, const char* text = "") {
  return said({{"type", "array"}, {"items", std::move(items)}}, text);
}
inline Json list(Json items, const char* text, std::size_t least, std::size_t most) {
  Json out = list(std::move(items), text);
  out["minItems"] = least;
  out["maxItems"] = most;
  return out;
}
inline Json map(Json values, const char* text = "") {
  return said({{"type", "object"}, {"additionalProperties", std::move(values)}}, text);
}
inline Json any_of(std::initializer_list<Json> schemas, const char* text = "") {
  Json all = Json::array();
  for (const Json& schema : schemas) all.push_back(schema);
  return said({{"anyOf", std::move(all)}}, text);
}

/// May be null as well.
inline Json or_null(Json schema) {
  if (schema.contains("type") && schema["type"].is_string() && !schema.contains("const")) {
    schema["type"] = Json::array({schema["type"], "null"});
    if (schema.contains("enum")) schema["enum"].push_back(nullptr);
    return schema;
  }
  if (!schema.contains("anyOf")) schema = Json{{"anyOf", Json::array({std::move(schema)})}};
  schema["anyOf"].push_back({{"type", "null"}});
  return schema;
}

inline Json object(const Fields& fields, const std::vector<std::string>& required, const char* text = "") {
  Json out{{"type", "object"}, {"properties", Json::object()}};
  for (const auto& [name, schema] : fields) out["properties"][name] = schema;
  if (!required.empty()) out["required"] = required;
  return said(std::move(out), text);
}

/// What a request holds: a field that need not be there may be null, which counts as absent.
inline Json taken(const Fields& fields, const std::vector<std::string>& required, const char* text = "") {
  const std::set<std::string> needed(required.begin(), required.end());
  Fields out;
  for (const auto& [name, schema] : fields) out.emplace_back(name, needed.contains(name) ? schema : or_null(schema));
  return object(out, required, text);
}

/// What an answer holds: all of the fields but those in `may_lack`.
inline Json told(const Fields& fields, const std::set<std::string>& may_lack = {}, const char* text = "") {
  std::vector<std::string> required;
  for (const auto& [name, schema] : fields) {
    if (!may_lack.contains(name)) required.push_back(name);
  }
  return object(fields, required, text);
}

/// Fill components.schemas.
void add_request_schemas(const ApiLimits& limits, Json& schemas);
void add_answer_schemas(Json& schemas);
void add_job_schemas(Json& schemas);  // of files, fine-tuning jobs and batches, both ways

}  // namespace tailor::openapi
