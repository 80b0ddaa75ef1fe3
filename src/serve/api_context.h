#pragma once
/// One request on its way through the API, and where its handlers live.

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/log.h"
#include "serve/api_result.h"
#include "serve/field_reader.h"
#include "serve/http_handler.h"
#include "serve/served_model.h"

namespace tailor {

/// Who asks. Without keys everybody is the same one.
struct Principal {
  std::string key_id;      // accounted to; empty: nobody in particular
  std::string cache_salt;  // beginnings of prompts are shared within it only
  int priority = 0;
};

struct ApiLimits {
  std::uint64_t body_bytes = std::uint64_t{8} << 20;
  int choices = 16;               // n, and prompts of a completion together
  std::size_t prompts = 128;      // of a completion
  std::size_t texts = 2048;       // of an embedding or a classification
  std::size_t stop_texts = 16;
  std::size_t stop_bytes = 256;
  std::size_t messages = 2048;
  std::size_t logit_bias = 1024;
  int top_logprobs = 20;
  std::chrono::seconds request_timeout{600};
  std::chrono::milliseconds stream_keep_alive{15'000};
};

struct GenerationReport;  // generation_call.h

/// What all handlers may use; lives as long as the server.
struct ApiServices {
  ModelRegistry* models = nullptr;
  ApiLimits limits;
  std::string openapi;  // the document, written
  Logger* log = nullptr;
  const std::atomic<bool>* draining = nullptr;  // no new work is taken
  std::function<void(const ServedModel&, const GenerationReport&)> on_generation;  // may be empty
};

struct ApiCall {
  HttpRequest request;
  std::shared_ptr<HttpResponder> responder;
  Principal principal;
  std::string id;                            // "req-…", told in X-Request-Id
  std::map<std::string, std::string> path;   // {"id": "gpt"} of "/v1/models/{id}"
  SteadyTime arrived;
  std::vector<std::string> ignored;          // parameters that nobody read

  /// Fields of every answer.
  HttpHeaders headers(const char* content_type) const;
  void answer(const Json& json, int status = 200) const;
  void answer(const ApiError& error) const;
};
using ApiCallPtr = std::shared_ptr<ApiCall>;

/// "chatcmpl-" and 24 random characters.
std::string random_id(const std::string& prefix);
std::int64_t unix_seconds();

/// The model that a request names; its absence is told with the names there are.
ApiResult<ServedModelPtr> named_model(const ApiServices& services, FieldReader& in);

}  // namespace tailor
