// Whether the server lives, whether it should be given work, and what it can be asked.

#include "serve/api_handlers.h"
#include "serve/api_server.h"
#include "serve/server_metrics.h"

namespace tailor {
namespace {

/// A lane that has had work for so long without a step's end has stopped.
constexpr std::chrono::seconds kLongestStep{60};

/// Empty: ready.
std::string reason_not_ready(const ApiServices& services) {
  if (services.draining != nullptr && services.draining->load()) return "the server is draining";
  const auto models = services.models->list();
  if (models.empty()) return "no model is loaded";
  const SteadyTime now = services.clock ? services.clock() : std::chrono::steady_clock::now();
  for (const ServedModelPtr& model : models) {
    if (model->text) {
      const auto since = model->text->engine().stats().computing_since;
      if (since && now - *since > kLongestStep) return "an engine has made no step for a minute";
    }
    const auto due = model->batcher_load().due;
    if (due && now > *due) return "a batch of texts has not ended in its time";
  }
  return {};
}

}  // namespace

void handle_livez(const ApiServices& /*services*/, const ApiCallPtr& call) {
  call->answer(Json{{"status", "ok"}});
}

void handle_readyz(const ApiServices& services, const ApiCallPtr& call) {
  std::string reason = reason_not_ready(services);
  if (reason.empty()) return call->answer(Json{{"status", "ok"}});
  if (!services.door->may_hear_reasons(call->request.head)) reason = "the server is not ready";
  call->answer(ApiError{503, "unavailable_error", "not_ready", std::move(reason), "", 1});
}

/// As llama.cpp has it.
void handle_health(const ApiServices& services, const ApiCallPtr& call) {
  if (const std::string reason = reason_not_ready(services); !reason.empty())
    return call->answer(Json{{"error", {{"code", 503}, {"message", reason}, {"type", "unavailable_error"}}}}, 503);
  call->answer(Json{{"status", "ok"}});
}

void handle_version(const ApiServices& /*services*/, const ApiCallPtr& call) {
  call->answer(Json{{"version", TAILOR_VERSION}});
}

void handle_metrics(const ApiServices& services, const ApiCallPtr& call) {
  if (services.metrics == nullptr)
    return call->answer(ApiError{404, "not_found_error", "", "this server counts nothing", ""});
  const std::string* accept = call->request.head.headers.find("Accept");
  const bool open = accept != nullptr && accept->find("application/openmetrics-text") != std::string::npos;
  const auto format = open ? MetricText::Format::kOpenMetrics : MetricText::Format::kPrometheus;
  call->responder->send(
      HttpResponse{200, call->headers(MetricText::content_type(format)), services.metrics->text(format)});
}

void handle_openapi(const ApiServices& services, const ApiCallPtr& call) {
  call->responder->send(HttpResponse{200, call->headers("application/json"), services.openapi});
}

}  // namespace tailor
