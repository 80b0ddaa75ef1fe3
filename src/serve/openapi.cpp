#include "serve/openapi.h"

#include <algorithm>
#include <iterator>

#include "serve/api_routes.h"
#include "serve/openapi_parts.h"

namespace tailor {
namespace {

struct RouteText {
  const char *method, *path, *id, *tag, *summary;
  const char* request;  // schemas; null: no body
  const char* answer;
  const char* event;            // of a stream; null: none
  const char* unavailable;      // of 503, where it is not Error
  const char* query = nullptr;  // parameters; "limit<1000": at most so much, else 100
  const char* takes = nullptr;  // media type of the body; null: application/json
  const char* gives = nullptr;  // of the answer, one or more; null: application/json
};

constexpr RouteText kRoutes[] = {
    {"GET", "/livez", "live", "state", "Whether the server lives", nullptr, "State", nullptr, nullptr},
    {"GET", "/readyz", "ready", "state",
     "Whether it should be given work; where there are keys, one of the scope metrics or admin hears why not", nullptr,
     "State", nullptr, nullptr},
    {"GET", "/health", "health", "state", "The same, as llama.cpp has it", nullptr, "State", nullptr, "HealthError"},
    {"GET", "/v1/health", "healthV1", "state", "The same", nullptr, "State", nullptr, "HealthError"},
    {"GET", "/ping", "ping", "state", "Whether the server lives", nullptr, "State", nullptr, nullptr},
    {"GET", "/version", "version", "state", "The program's version", nullptr, "Version", nullptr, nullptr},
    {"GET", "/openapi.json", "openapi", "state", "This document", nullptr, "OpenApi", nullptr, nullptr},
    {"GET", "/v1/models", "listModels", "models",
     "The models that are served; those of fine-tuning jobs to the job's key, and keys of scopes infer and admin",
     nullptr, "ModelList", nullptr, nullptr},
    {"GET", "/v1/models/{id}", "retrieveModel", "models", "One of them", nullptr, "Model", nullptr, nullptr},
    {"DELETE", "/v1/models/{id}", "deleteModel", "models",
     "Deletes a model that a fine-tuning job made: for the job's key, or one of scope admin", nullptr, "DeletedModel",
     nullptr, nullptr},
    {"POST", "/v1/chat/completions", "createChatCompletion", "text",
     "Answers a conversation; a label package answers with the label", "ChatCompletionRequest", "ChatCompletion",
     "ChatCompletionChunk", nullptr},
    {"POST", "/v1/completions", "createCompletion", "text", "Goes on with a text, or tells how likely it is",
     "CompletionRequest", "Completion", "CompletionChunk", nullptr},
    {"POST", "/v1/embeddings", "createEmbedding", "vectors", "Texts as vectors of length 1", "EmbeddingRequest",
     "EmbeddingList", nullptr, nullptr},
    {"POST", "/v1/rerank", "rerankV1", "vectors", "Documents in the order of their relevance", "RerankRequest",
     "Ranking", nullptr, nullptr},
    {"POST", "/rerank", "rerank", "vectors", "The same", "RerankRequest", "Ranking", nullptr, nullptr},
    {"POST", "/v1/classify", "classify", "labels", "Labels of texts", "ClassifyRequest", "ClassificationList", nullptr,
     nullptr},
    {"POST", "/v1/tag", "tag", "labels", "Entities in texts, or a tag for each word", "TagRequest", "TagList", nullptr,
     nullptr},
    {"POST", "/v1/extract", "extract", "labels", "Answers that stand in a text", "ExtractRequest", "AnswerList",
     nullptr, nullptr},
    {"GET", "/", "page", "page", "The page for people", nullptr, "Text", nullptr, nullptr, nullptr, nullptr,
     "text/html"},
    {"GET", "/assets/{name}", "pageFile", "page", "A file of the page", nullptr, "Text", nullptr, nullptr, nullptr,
     nullptr, "text/css text/javascript image/svg+xml"},
    {"GET", "/metrics", "metrics", "state", "Figures for Prometheus; OpenMetrics where Accept names it", nullptr,
     "Text", nullptr, nullptr, nullptr, nullptr, "text/plain application/openmetrics-text"},
    {"POST", "/v1/files", "uploadFile", "files", "Takes a file", "UploadRequest", "File", nullptr, nullptr, nullptr,
     "multipart/form-data"},
    {"GET", "/v1/files", "listFiles", "files", "The files there are", nullptr, "FileList", nullptr, nullptr,
     "purpose after limit<10000 order"},
    {"GET", "/v1/files/{id}", "retrieveFile", "files", "One of them", nullptr, "File", nullptr, nullptr},
    {"DELETE", "/v1/files/{id}", "deleteFile", "files", "Removes it", nullptr, "Deleted", nullptr, nullptr},
    {"GET", "/v1/files/{id}/content", "downloadFile", "files", "Its bytes", nullptr, "Bytes", nullptr, nullptr, nullptr,
     nullptr, "application/octet-stream"},
    {"POST", "/v1/fine_tuning/jobs", "createFineTuningJob", "fine-tuning", "Trains a model on a file",
     "FineTuningJobRequest", "FineTuningJob", nullptr, nullptr},
    {"GET", "/v1/fine_tuning/jobs", "listFineTuningJobs", "fine-tuning", "The jobs there are", nullptr,
     "FineTuningJobList", nullptr, nullptr, "after limit order"},
    {"GET", "/v1/fine_tuning/jobs/{id}", "retrieveFineTuningJob", "fine-tuning", "One of them", nullptr,
     "FineTuningJob", nullptr, nullptr},
    {"POST", "/v1/fine_tuning/jobs/{id}/cancel", "cancelFineTuningJob", "fine-tuning", "Ends it", nullptr,
     "FineTuningJob", nullptr, nullptr},
    {"POST", "/v1/fine_tuning/jobs/{id}/pause", "pauseFineTuningJob", "fine-tuning", "Stops it, to be resumed", nullptr,
     "FineTuningJob", nullptr, nullptr},
    {"POST", "/v1/fine_tuning/jobs/{id}/resume", "resumeFineTuningJob", "fine-tuning", "Goes on with it", nullptr,
     "FineTuningJob", nullptr, nullptr},
    {"GET", "/v1/fine_tuning/jobs/{id}/events", "listFineTuningEvents", "fine-tuning",
     "What happened to it, the newest first", nullptr, "FineTuningEventList", nullptr, nullptr,
     "after limit<1000 order"},
    {"GET", "/v1/fine_tuning/jobs/{id}/checkpoints", "listFineTuningCheckpoints", "fine-tuning", "Its models", nullptr,
     "FineTuningCheckpointList", nullptr, nullptr, "after limit order"},
    {"POST", "/v1/batches", "createBatch", "batches", "Has a file's requests answered in the background",
     "BatchRequest", "Batch", nullptr, nullptr},
    {"GET", "/v1/batches", "listBatches", "batches", "The batches there are", nullptr, "BatchList", nullptr, nullptr,
     "after limit order"},
    {"GET", "/v1/batches/{id}", "retrieveBatch", "batches", "One of them", nullptr, "Batch", nullptr, nullptr},
    {"POST", "/v1/batches/{id}/cancel", "cancelBatch", "batches", "Ends it; what was answered stays", nullptr, "Batch",
     nullptr, nullptr},
    {"POST", "/v1/admin/models", "loadModel", "admin", "Serves a model of the store, or replaces one",
     "LoadModelRequest", "Model", nullptr, nullptr},
    {"DELETE", "/v1/admin/models/{id}", "removeModel", "admin", "Serves it no longer", nullptr, "DeletedModel", nullptr,
     nullptr},
    {"POST", "/v1/load_lora_adapter", "loadLoraAdapter", "admin", "Serves an adapter, as vLLM has it",
     "LoadLoraAdapterRequest", "Done", nullptr, nullptr},
    {"POST", "/v1/unload_lora_adapter", "unloadLoraAdapter", "admin", "Serves it no longer", "UnloadLoraAdapterRequest",
     "Done", nullptr, nullptr},
    {"POST", "/tokenize", "tokenize", "tokens", "A text's or a conversation's tokens", "TokenizeRequest", "Tokens",
     nullptr, nullptr},
    {"POST", "/detokenize", "detokenize", "tokens", "The text of tokens", "DetokenizeRequest", "DetokenizedText",
     nullptr, nullptr},
    {"GET", "/tokenizer_info", "tokenizerInfo", "tokens", "Special tokens, as vLLM tells them", nullptr,
     "TokenizerInfo", nullptr, nullptr, "model"},
    {"POST", "/apply-template", "applyTemplate", "tokens", "The prompt that a conversation becomes",
     "ApplyTemplateRequest", "TemplatedText", nullptr, nullptr},
};

const RouteText* text_of(std::string_view method, std::string_view path) {
  const auto* found = std::find_if(std::begin(kRoutes), std::end(kRoutes),
                                   [&](const RouteText& r) { return method == r.method && path == r.path; });
  return found == std::end(kRoutes) ? nullptr : found;
}

struct Failure {
  const char *status, *name, *text;
  bool scoped, body;    // only where a key is asked for, only where there is a body
  bool upload = false;  // only of an upload
};

constexpr Failure kFailures[] = {
    {"400", "BadRequest", "The request is wrong; param names the field", false, false},
    {"401", "Unauthorized", "The key is missing or not known", true, false},
    {"403", "Forbidden",
     "The key does not allow this, the host name is not the server's, or a page of another origin asks", false, false},
    {"404", "NotFound", "There is no such model, file, job or batch", true, false},
    {"408", "Timeout", "The request came too slowly, or its answer took too long", false, false},
    {"413", "TooLarge", "The body is too large; of an upload also: the key's files would be, together", false, false},
    {"414", "TargetTooLong", "The path and query are too long", false, false},
    {"415", "UnsupportedMediaType", "The body is not said to be application/json, of an upload multipart/form-data",
     false, true},
    {"417", "ExpectationFailed", "Expect holds something other than 100-continue", false, false},
    {"429", "TooManyRequests",
     "The key's quota is used up for now; Retry-After tells how long. Or as many jobs or batches have not ended as may "
     "be",
     true, false},
    {"431", "HeadTooLarge", "The header fields are too large", false, false},
    {"500", "ServerError", "The server failed; its log has the reason", false, false},
    {"501", "NotImplemented",
     "The transfer coding is not known, or the server keeps no files, jobs and batches, or cannot train", false, false},
    {"503", "Overloaded", "The server has too much to do, or shuts down; Retry-After tells when to ask again", false,
     false},
    {"507", "NoRoom", "The disk has no room for the file", false, false, true},
    {"505", "VersionNotSupported", "The HTTP version is none of 1.0 and 1.1", false, false},
};

Json header(const char* name) {
  return {{"$ref", std::string("#/components/headers/") + name}};
}

Json failure(const Failure& f, const char* schema) {
  Json out{{"description", f.text}, {"content", {{"application/json", {{"schema", openapi::ref(schema)}}}}}};
  out["headers"]["X-Request-Id"] = header("RequestId");
  const std::string status = f.status;
  if (status == "429" || status == "503") out["headers"]["Retry-After"] = header("RetryAfter");
  if (status == "401") out["headers"]["WWW-Authenticate"] = header("Authenticate");
  return out;
}

Json query_schema(const std::string& name, std::int64_t most) {
  if (name == "limit") return openapi::integer("elements of a page", 1, most);
  if (name == "order") return openapi::one_of({"asc", "desc"}, "by the time they were made; desc: the newest first");
  if (name == "after") return openapi::string("the id of the last element of the page before");
  return {{"type", "string"}};
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> out;
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), out.back().size() + 1)))
    out.push_back(text.substr(0, text.find(' ')));
  return out;
}

Json operation(const ApiRoute& route, const RouteText& text, const Json& schemas) {
  Json out{{"operationId", text.id}, {"tags", Json::array({text.tag})}, {"summary", text.summary}};
  if (route.scope == ApiScope::kNone)
    out["security"] = Json::array();
  else
    out["security"] = Json::array({{{"key", Json::array()}}});
  const std::string path = text.path;
  for (std::size_t at = path.find('{'); at != std::string::npos; at = path.find('{', at + 1)) {
    const std::string name = path.substr(at + 1, path.find('}', at) - at - 1);
    Json schema = openapi::said({{"type", "string"}, {"minLength", 1}}, route.rest ? "may hold slashes" : "");
    out["parameters"].push_back({{"name", name}, {"in", "path"}, {"required", true}, {"schema", std::move(schema)}});
  }
  for (const std::string_view word : words(text.query != nullptr ? text.query : "")) {
    const std::string name(word.substr(0, word.find('<')));
    const std::int64_t most = name.size() < word.size() ? std::stoll(std::string(word.substr(name.size() + 1))) : 100;
    out["parameters"].push_back({{"name", name}, {"in", "query"}, {"schema", query_schema(name, most)}});
  }
  if (text.request != nullptr) {
    Json content{{"schema", openapi::ref(text.request)}};
    if (const Json& schema = schemas[text.request]; schema.contains("examples"))
      content["examples"]["usual"]["value"] = schema["examples"][0];
    out["requestBody"] = {{"required", true},
                          {"content", {{text.takes != nullptr ? text.takes : "application/json", std::move(content)}}}};
  }
  Json good{{"description", "The answer"}, {"headers", {{"X-Request-Id", header("RequestId")}}}};
  if (std::string_view(text.tag) != "page") good["headers"]["X-Ignored-Params"] = header("IgnoredParams");
  for (const std::string_view type : words(text.gives != nullptr ? text.gives : "application/json"))
    good["content"][std::string(type)]["schema"] = openapi::ref(text.answer);
  if (const Json& schema = schemas[text.answer]; schema.contains("examples"))
    good["content"]["application/json"]["examples"]["usual"]["value"] = schema["examples"][0];
  if (text.event != nullptr) {
    Json data = openapi::string();
    data["contentMediaType"] = "application/json";
    data["contentSchema"] = openapi::any_of({openapi::ref(text.event), openapi::ref("Error")});
    good["content"]["text/event-stream"]["schema"] = openapi::object(
        {{"data", openapi::any_of({openapi::constant("[DONE]"), std::move(data)}, "[DONE]: the last one")}}, {"data"},
        "One of the server-sent events that come with \"stream\": true. A failure after the first is "
        "an event with an Error, after which "
        "the stream ends.");
  }
  out["responses"]["200"] = std::move(good);
  if (std::string_view(text.tag) == "page")
    out["responses"]["304"] = {{"description", "If-None-Match names what would be sent"},
                               {"headers", {{"X-Request-Id", header("RequestId")}}}};
  const bool named = path.find('{') != std::string::npos;
  for (const Failure& f : kFailures) {
    const bool open = route.scope == ApiScope::kNone && !(named && std::string_view(f.status) == "404");
    if ((f.scoped && open) || (f.body && text.request == nullptr) || (f.upload && route.sink == nullptr)) continue;
    if (text.unavailable != nullptr && std::string(f.status) == "503")
      out["responses"][f.status] = failure(f, text.unavailable);
    else
      out["responses"][f.status] = {{"$ref", std::string("#/components/responses/") + f.name}};
  }
  return out;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

}  // namespace

std::string openapi_request(const std::string& method, const std::string& path) {
  const RouteText* text = text_of(method, path);
  return text == nullptr || text->request == nullptr ? "" : text->request;
}

std::vector<std::string> openapi_query(const std::string& method, const std::string& path) {
  std::vector<std::string> out;
  const RouteText* text = text_of(method, path);
  if (text == nullptr || text->query == nullptr) return out;
  for (const std::string_view word : words(text->query)) out.emplace_back(word.substr(0, word.find('<')));
  return out;
}

Json openapi_document(const ApiLimits& limits) {
  Json schemas = Json::object();
  openapi::add_request_schemas(limits, schemas);
  openapi::add_answer_schemas(schemas);
  openapi::add_job_schemas(schemas);
  Json responses = Json::object();
  for (const Failure& f : kFailures) responses[f.name] = failure(f, "Error");
  Json paths = Json::object();
  for (const ApiRoute& route : api_routes()) {
    if (const RouteText* text = text_of(route.method, route.path))
      paths[route.path][lower(route.method)] = operation(route, *text, schemas);
  }
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Tailor"},
            {"version", TAILOR_VERSION},
            {"description",
             "OpenAI's API for models that run here. Fields that are not described are ignored, and named in "
             "X-Ignored-Params. "
             "A server without keys asks for none."},
            {"license", {{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}},
          {"servers", Json::array({{{"url", "/"}}})},
          {"paths", std::move(paths)},
          {"components",
           {{"schemas", std::move(schemas)},
            {"responses", std::move(responses)},
            {"headers",
             {{"RequestId",
               {{"description", "the request's own X-Request-Id, or a new one"}, {"schema", {{"type", "string"}}}}},
              {"IgnoredParams",
               {{"description",
                 "what the request holds and nothing reads, separated by commas: fields with their paths "
                 "(messages[0].foo; what the elements of a list have, at the first of them), names of the query "
                 "(?foo), fields of a form; ... where there are more than have room"},
                {"schema", {{"type", "string"}}}}},
              {"RetryAfter", {{"description", "seconds"}, {"schema", {{"type", "string"}, {"pattern", "^[0-9]+$"}}}}},
              {"Authenticate", {{"schema", {{"type", "string"}}}}}}},
            {"securitySchemes",
             {{"key", {{"type", "http"}, {"scheme", "bearer"}, {"description", "Authorization: Bearer KEY"}}}}}}}};
}

}  // namespace tailor
