#include "recipes/serve.h"

#include <fmt/format.h>

#include <optional>
#include <thread>

#include "core/system.h"
#include "serve/api_server.h"
#include "serve/http_server.h"
#include "serve/server_metrics.h"
#include "serve/served_model.h"

namespace tailor {
namespace {

Status load_models(const ServeRequest& request, ModelRegistry& models, const ModelLoadOptions& options) {
  for (const auto& package : request.packages) {
    TAILOR_TRY(auto model, serve_package(package, "", options));
    models.put(std::move(model));
  }
  ServedModelPtr base;
  for (const std::string& name : request.models) {
    TAILOR_TRY(auto model, serve_base_model(name, "", options));
    const ServedModelPtr served = models.put(std::move(model));
    if (!base) base = served;
  }
  for (const std::string& adapter : request.adapters) {
    const std::size_t equals = adapter.find('=');
    if (equals == 0 || equals == std::string::npos)
      return Error{ErrorCode::kInvalidArgument, fmt::format("--adapter {}: expected NAME=PATH", adapter), "--adapter support=runs/lora/package"};
    if (!base)
      return Error{ErrorCode::kInvalidArgument, "--adapter needs a base model to stand on", "name it with --model"};
    TAILOR_TRY(auto model, serve_adapter(*base, adapter.substr(equals + 1), adapter.substr(0, equals)));
    models.put(std::move(model));
  }
  if (models.list().empty())
    return Error{ErrorCode::kInvalidArgument, "there is nothing to serve", "name a package, or a base model with --model"};
  return {};
}

/// An address that other machines reach.
bool is_open(const HttpEndpoint& endpoint) {
  return endpoint.unix_path.empty() && endpoint.host != "localhost" && endpoint.host != "::1" &&
         !endpoint.host.starts_with("127.");
}

}  // namespace

Status serve(const ServeRequest& request, Logger& log, const std::function<void(const std::vector<std::string>&)>& ready,
             const CancelToken& stop) {
  HttpServerOptions options;
  for (const std::string& listen : request.listen) {
    TAILOR_TRY(HttpEndpoint endpoint, parse_endpoint(listen));
    if (is_open(endpoint))
      return Error{ErrorCode::kInvalidArgument, fmt::format("--listen {}: other machines could use this server, and there are no keys", listen),
                   "listen on 127.0.0.1"};
    if (!request.tls_certificate.empty())
      endpoint.tls = TlsFiles{request.tls_certificate, request.tls_key, request.tls_client_ca};
    options.endpoints.push_back(std::move(endpoint));
  }
  const auto share =
      std::make_shared<ComputeShare>(request.threads > 0 ? request.threads : system_info().cores);
  // Before the models, which may hold a request to their end.
  std::optional<ServerMetrics> metrics;
  std::optional<RequestLog> request_log;
  std::optional<TraceExporter> traces;
  ModelRegistry models;
  metrics.emplace(models, ServerMetricsOptions{.vllm_names = request.vllm_metrics});
  TAILOR_CHECK(load_models(request, models, {.threads = request.threads,
                                             .cache_bytes = request.cache_bytes,
                                             .max_context = request.max_context,
                                             .queue = {},
                                             .share = share}));
  OpenDoor door;
  ApiServerOptions api_options;
  api_options.hosts = {"localhost", "127.0.0.1", "::1", ""};  // nobody else's page may use this server by a name of its own
  api_options.observers.push_back(&*metrics);
  if (LogSink* sink = request.request_log) {
    api_options.observers.push_back(&request_log.emplace(*sink, request.request_log_options));
    metrics->add([sink](MetricText& out) {
      out.counter("tailor_log_lines_dropped_total", "Lines of the log that nobody took in time, or no disk had room for.");
      out.sample({}, sink->dropped());
    });
  }
  if (request.traces) {
    api_options.observers.push_back(&traces.emplace(*request.traces, log));
    metrics->add([&traces](MetricText& out) { traces->write_metrics(out); });
  }
  ApiServer api(models, door, log, api_options);
  HttpServer server(api, options);
  api.services().metrics = &*metrics;
  metrics->set_draining(api.services().draining);
  metrics->watch_http(server.metrics());
  TAILOR_CHECK(server.start());
  std::vector<std::string> addresses;
  for (const HttpEndpoint& endpoint : server.endpoints()) addresses.push_back((endpoint.tls ? "https://" : "http://") + to_string(endpoint));
  ready(addresses);
  constexpr std::chrono::milliseconds kLook{50};
  while (!stop.cancelled()) std::this_thread::sleep_for(kLook);
  api.drain();
  server.stop_accepting();
  const SteadyTime end = std::chrono::steady_clock::now() + request.drain_timeout;
  while (std::chrono::steady_clock::now() < end && !server.wait_drained(kLook)) {
  }
  server.stop();
  return {};
}

}  // namespace tailor
