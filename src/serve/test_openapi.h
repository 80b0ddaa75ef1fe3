#pragma once
/// Answers against openapi.json: they hold what it describes and nothing else.

#include <gtest/gtest.h>

#include <string>

#include "infer/test_json_validator.h"
#include "serve/openapi.h"

namespace tailor::test {

class Described {
 public:
  Described() : document_(closed(openapi_document(ApiLimits{}))) {}

  /// `method` and `path` as the document has them: "post", "/v1/models/{id}".
  void check(const Json& answer, const std::string& method, const std::string& path) const {
    const Json& schema = good(method, path).at("application/json").at("schema");
    const auto name = schema.at("$ref").get<std::string>().substr(1);
    EXPECT_TRUE(document_.at(Json::json_pointer(name)).contains("type")) << path << " is not described";
    check_as(answer, schema, path);
  }
  /// What stands behind "data: ".
  void check_event(const Json& event, const std::string& path) const {
    if (event == "[DONE]") return;
    const Json& schema = good("post", path).at("text/event-stream").at("schema");
    check_as(event, schema.at("properties").at("data").at("anyOf").at(1).at("contentSchema"), path);
  }

 private:
  /// Without room for fields that it does not name.
  static Json closed(Json schema) {
    if (schema.is_object() && schema.contains("properties") && !schema.contains("additionalProperties"))
      schema["additionalProperties"] = false;
    if (schema.is_structured()) {
      for (Json& inner : schema) inner = closed(inner);
    }
    return schema;
  }
  const Json& good(const std::string& method, const std::string& path) const {
    return document_.at("paths").at(path).at(method).at("responses").at("200").at("content");
  }
  void check_as(const Json& value, const Json& schema, const std::string& path) const {
    Json root = schema;
    root["components"] = document_.at("components");
    EXPECT_TRUE(testing::JsonValidator(root).valid(value))
        << path << " is described as " << schema << ", got " << value;
  }
  Json document_;
};

}  // namespace tailor::test
