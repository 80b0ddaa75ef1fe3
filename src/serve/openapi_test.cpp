// The description against what the server does.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "serve/openapi.h"
#include "serve/page.h"
#include "serve/test_api.h"
#include "serve/test_openapi.h"
#include "serve/test_packages.h"
#include "serve/test_tools.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;

Json document() {
  return openapi_document(ApiLimits{});
}

TEST(OpenApi, DescribesEveryRouteAndNothingElse) {
  const Json doc = document();
  std::set<std::string> routes, described, ids;
  for (const ApiRoute& route : api_routes()) routes.insert(std::string(route.method) + " " + route.path);
  for (const auto& [path, operations] : doc["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(std::toupper(c));
      described.insert(upper + " " + path);
      EXPECT_TRUE(ids.insert(operation["operationId"]).second) << operation["operationId"];
    }
  }
  EXPECT_EQ(described, routes);
}

TEST(OpenApi, OperationsNameTheirScope) {
  const Json doc = document();
  for (const ApiRoute& route : api_routes()) {
    std::string method = route.method;
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    const Json& operation = doc["paths"][route.path][method];
    EXPECT_EQ(operation["security"].empty(), route.scope == ApiScope::kNone) << route.path;
    EXPECT_EQ(operation["responses"].contains("401"), route.scope != ApiScope::kNone) << route.path;
  }
}

TEST(OpenApi, EveryAnswerHasARequestId) {
  const Json doc = document();
  for (const auto& [path, operations] : doc["paths"].items()) {
    for (const Json& operation : operations) {
      for (const auto& [status, response] : operation["responses"].items()) {
        const bool shared = response.contains("$ref");
        const Json& whole =
            shared ? doc.at(Json::json_pointer(response["$ref"].get<std::string>().substr(1))) : response;
        EXPECT_TRUE(whole.contains("headers") && whole["headers"].contains("X-Request-Id")) << path << " " << status;
      }
    }
  }
}

TEST(OpenApi, NamesTheTypesOfThePagesFiles) {
  const Json paths = document()["paths"];
  for (const PageFile& file : page_files()) {
    const Json& responses = paths[file.path == "/" ? "/" : "/assets/{name}"]["get"]["responses"];
    EXPECT_TRUE(responses["200"]["content"].contains(std::string(file.type.substr(0, file.type.find(';')))))
        << file.path << " is " << file.type;
    EXPECT_TRUE(responses.contains("304")) << file.path;
    EXPECT_EQ(responses.contains("404"), file.path != "/") << file.path;
  }
}

void see_references(const Json& at, const Json& doc) {
  if (at.is_structured()) {
    if (at.is_object() && at.contains("$ref")) {
      const Json::json_pointer to(at["$ref"].get<std::string>().substr(1));
      EXPECT_TRUE(doc.contains(to)) << at["$ref"];
    }
    for (const Json& inner : at) see_references(inner, doc);
  }
}

TEST(OpenApi, ReferencesLeadSomewhere) {
  const Json doc = document();
  see_references(doc, doc);
}

TEST(OpenApi, IsServedWithTheServersLimits) {
  ApiServerOptions options;
  options.limits.choices = 3;
  TestApi api(options);
  const JsonAnswer got = api.get("/openapi.json");
  ASSERT_EQ(got.status, 200);
  EXPECT_EQ(*got.headers.find("Content-Type"), "application/json");
  EXPECT_EQ(got.json, openapi_document(options.limits));
  EXPECT_EQ(got.json["components"]["schemas"]["ChatCompletionRequest"]["properties"]["n"]["maximum"], 3);
  EXPECT_EQ(got.json["info"]["version"], TAILOR_VERSION);
}

/// Something that a schema takes.
Json value_of(const Json& schema, const Json& doc) {
  if (schema.contains("$ref"))
    return value_of(doc[Json::json_pointer(schema["$ref"].get<std::string>().substr(1))], doc);
  if (schema.contains("examples")) return schema["examples"][0];
  if (schema.contains("const")) return schema["const"];
  if (schema.contains("enum")) return schema["enum"][0];
  if (schema.contains("anyOf")) return value_of(schema["anyOf"][0], doc);
  const std::string type = schema["type"].is_array() ? schema["type"][0] : schema["type"];
  if (type == "boolean") return true;
  if (type == "integer" || type == "number") return 1;
  if (type == "string") return "x";
  if (type == "array") return Json::array({value_of(schema["items"], doc)});
  Json out = Json::object();
  for (const Json& name : schema.value("required", Json::array()))
    out[name.get<std::string>()] = value_of(schema["properties"][name.get<std::string>()], doc);
  return out;
}

bool ignored(const JsonAnswer& answer, const std::string& name) {
  const std::string* names = answer.headers.find("X-Ignored-Params");
  return names != nullptr && (", " + *names + ",").find(", " + name + ",") != std::string::npos;
}

/// Each described field alone beside the example: it is read, and taken or refused by name.
TEST(OpenApi, DescribedFieldsAreRead) {
  TestApi api;
  const TemporaryDirectory dir("openapi");
  test::write_neighbours_package(dir.path() / "rows", true);
  test::write_tag_package(dir.path() / "tags", {0, 9, 0, 0, 0}, 0);
  test::write_span_package(dir.path() / "spans", 0, false);
  for (const char* name : {"rows", "tags", "spans"})
    api.models().put(serve_package(dir.path() / name, name, {.share = std::make_shared<ComputeShare>(1)}).value());
  const std::map<std::string, std::string> models{
      {"ClassifyRequest", "rows"}, {"TagRequest", "tags"}, {"ExtractRequest", "spans"}};
  const Json doc = document();
  for (const ApiRoute& route : api_routes()) {
    const std::string name = openapi_request(route.method, route.path);
    if (name.empty() || route.needs_store || route.scope == ApiScope::kAdmin) continue;  // there is no store
    const Json& schema = doc["components"]["schemas"][name];
    const Json usual = schema["examples"][0];
    for (const auto& [field, described] : schema["properties"].items()) {
      SCOPED_TRACE(std::string(route.path) + " " + field);
      if (field == "model") continue;
      Json body = usual;
      if (models.contains(name)) body["model"] = models.at(name);
      if (!body.contains(field)) body[field] = value_of(described, doc);
      if (field == "messages" || field == "prompt") body.erase("content");  // of /tokenize: one of the three
      if (std::string(route.path).find("completions") != std::string::npos) body["not_described"] = 1;
      const JsonAnswer got = api.post(route.path, body);
      if (got.status == 200) {
        EXPECT_FALSE(ignored(got, field));
        EXPECT_EQ(ignored(got, "not_described"), body.contains("not_described"));
        continue;
      }
      ASSERT_EQ(got.status, 400) << got.json;
      ASSERT_TRUE(got.json["error"]["param"].is_string()) << got.json;
      EXPECT_EQ(got.json["error"]["param"].get<std::string>().rfind(field, 0), 0u) << got.json;
    }
  }
}

TEST(OpenApi, CallsOfToolsAreDescribed) {
  TestApi api;
  ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(1)};
  api.models().put(serve_base_model(test::model_with_tools().string(), "tools", load).value());
  const test::Described described;
  const std::string path = "/v1/chat/completions";
  const Json ask{{"model", "tools"},
                 {"messages", {{{"role", "user"}, {"content", "Rain?"}}}},
                 {"tools", test::tools()},
                 {"tool_choice", "required"},
                 {"max_tokens", 900}};
  const JsonAnswer whole = api.post(path, ask);
  ASSERT_EQ(whole.status, 200) << whole.json;
  ASSERT_EQ(whole.json["choices"][0]["message"]["tool_calls"].size(), 1u) << whole.json;
  described.check(whole.json, "post", path);
  std::size_t calls = 0;
  for (const Json& event : api.stream(path, ask)) {
    described.check_event(event, path);
    if (event.is_object()) calls += event["choices"][0]["delta"].contains("tool_calls") ? 1 : 0;
  }
  EXPECT_EQ(calls, 1u);
  Json schemas = document()["components"]["schemas"];
  EXPECT_EQ(schemas["ToolCall"]["required"], (Json{"id", "type", "function"}));
  EXPECT_EQ(schemas["ToolCallDelta"]["required"], (Json{"index", "id", "type", "function"}));
}

TEST(OpenApi, AnswersOfPackagesAreDescribed) {
  TestApi api;
  for (const char* name : {"rows", "tags", "spans"}) {
    const auto package = test::small_packages() / name;
    api.models().put(serve_package(package, name, {.share = std::make_shared<ComputeShare>(1)}).value());
  }
  const test::Described described;
  const auto ask = [&](const std::string& path, const Json& body) {
    const JsonAnswer got = api.post(path, body);
    EXPECT_EQ(got.status, 200) << path << " " << got.json;
    described.check(got.json, "post", path);
    return got.json;
  };
  EXPECT_EQ(ask("/v1/classify", {{"model", "rows"}, {"input", "How much is it?"}, {"nearest", 2}})["data"][0]["nearest"]
                .size(),
            2u);
  ask("/v1/classify", {{"model", "rows"}, {"input", {"a", "b"}}, {"label_only", true}});
  EXPECT_FALSE(
      ask("/v1/tag", {{"model", "tags"}, {"input", "Anna left"}, {"words", true}})["data"][0]["words"].empty());
  ask("/v1/extract", {{"model", "spans"}, {"question", "Who?"}, {"context", "Ada did."}});
  for (const char* name : {"rows", "tags"}) {
    const Json chat{{"model", name}, {"messages", {{{"role", "user"}, {"content", "Anna left"}}}}};
    ask("/v1/chat/completions", chat);
    for (const Json& event : api.stream("/v1/chat/completions", chat))
      described.check_event(event, "/v1/chat/completions");
    described.check(api.get(std::string("/v1/models/") + name).json, "get", "/v1/models/{id}");
  }
  const Json list = api.get("/v1/models").json;
  EXPECT_EQ(list["data"].size(), 4u);
  described.check(list, "get", "/v1/models");
}

TEST(OpenApi, NamesTheTypesOfTheFigures) {
  std::unique_ptr<ServerMetrics> metrics;
  TestApi api({}, {}, nullptr, &metrics);
  const Json content = document()["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
  for (const char* accept : {"text/plain", "application/openmetrics-text"}) {
    const JsonAnswer got = api.get("/metrics", std::string("Accept: ") + accept + "\r\n");
    EXPECT_EQ(got.status, 200);
    const std::string type = *got.headers.find("Content-Type");
    EXPECT_EQ(type.substr(0, type.find(';')), accept);
    EXPECT_TRUE(content.contains(accept)) << content;
  }
}

/// Names that the handlers' sources read.
std::set<std::string> names_read() {
  std::set<std::string> out;
  const std::filesystem::path source = std::filesystem::path(std::getenv("TAILOR_SOURCE_DIR")) / "src" / "serve";
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    const std::string file = entry.path().filename().string();
    const bool reads = file.rfind("api_", 0) == 0 || file == "chat_request.cpp" || file == "generation_params.cpp" ||
                       file == "response_format.cpp";
    if (!reads || entry.path().extension() != ".cpp" || file.find("_test") != std::string::npos) continue;
    std::ifstream in(entry.path());
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    static const std::regex kRead(
        R"re(\.(find|has|boolean|number|integer|text|required_text|texts|accept)\((prefix \+ )?"([A-Za-z_]+)")re");
    for (std::sregex_iterator at(text.begin(), text.end(), kRead), end; at != end; ++at) {
      if ((*at)[2].matched) out.insert("guided_" + (*at)[3].str());
      out.insert((*at)[3].str());
    }
  }
  return out;
}

void collect_names(const Json& at, std::set<std::string>& out) {
  if (!at.is_structured()) return;
  if (at.is_object() && at.contains("properties")) {
    for (const auto& [name, schema] : at["properties"].items()) out.insert(name);
  }
  for (const Json& inner : at) collect_names(inner, out);
}

TEST(OpenApi, FieldsThatAreReadAreDescribed) {
  const Json doc = document();
  std::set<std::string> described;
  for (const auto& [name, schema] : doc["components"]["schemas"].items()) {
    if (name == "Message" || name.find("Request") != std::string::npos) collect_names(schema, described);
  }
  const std::set<std::string> read = names_read();
  EXPECT_TRUE(read.contains("guided_regex"));
  EXPECT_GT(read.size(), 60u);
  for (const std::string& name : read) {
    if (name == "Content-Type" || name == "X" || name == "Accept" || name == "tracestate" || name == "traceparent" ||
        name == "type" || name == "function" || name == "Content-Disposition")
      continue;
    EXPECT_TRUE(described.contains(name)) << name << " is read and not described";
  }
}

}  // namespace
}  // namespace tailor
