#include "recipes/serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "core/system.h"
#include "recipes/fine_tune.h"
#include "serve/api_routes.h"
#include "serve/api_server.h"
#include "serve/batch_runner.h"
#include "serve/http_server.h"
#include "serve/key_door.h"
#include "serve/key_file.h"
#include "serve/model_admin.h"
#include "serve/origin_policy.h"
#include "serve/served_model.h"
#include "serve/server_metrics.h"
#include "store/default_directory.h"
#include "store/names.h"

namespace tailor {
namespace {

constexpr std::chrono::milliseconds kLook{50};

/// Names in segments, as some catalogues have them: "org/model".
Status check_served_name(std::string_view name) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    TAILOR_CHECK(check_name(name.substr(begin, end - begin), "model name"));
    begin = end + 1;
  }
  return {};
}

Status load_served(const ServeModel& wanted, ModelRegistry& models, ModelAdmin& admin,
                   const ModelLoadOptions& options) {
  if (!wanted.name.empty()) TAILOR_CHECK(check_served_name(wanted.name));
  for (const ServeAdapter& adapter : wanted.adapters) TAILOR_CHECK(check_served_name(adapter.name));
  if (!wanted.stored.empty()) {
    TAILOR_TRY([[maybe_unused]] const ServedModelPtr stored, admin.load_stored(wanted.stored, wanted.name));
    return {};
  }
  if (!wanted.package.empty()) {
    TAILOR_TRY(auto package, serve_package(wanted.package, wanted.name, options));
    models.put(std::move(package));
    return {};
  }
  TAILOR_TRY(auto model, serve_base_model(wanted.model, wanted.name, options));
  const ServedModelPtr base = models.put(std::move(model));
  for (const ServeAdapter& adapter : wanted.adapters) {
    TAILOR_TRY(auto served, serve_adapter(*base, adapter.path, adapter.name));
    models.put(std::move(served));
  }
  return {};
}

Status load_models(const ServeRequest& request, ModelRegistry& models, ModelAdmin& admin,
                   const ModelLoadOptions& options) {
  for (const auto& package : request.packages) {
    std::error_code ignored;
    if (!std::filesystem::exists(package, ignored) && admin.store() != nullptr &&
        package.string().find('/') == std::string::npos) {
      TAILOR_TRY([[maybe_unused]] const ServedModelPtr stored, admin.load_stored(package.string(), ""));
      continue;
    }
    TAILOR_TRY(auto model, serve_package(package, "", options));
    models.put(std::move(model));
  }
  for (const ServeModel& wanted : request.served) {
    if (const Status loaded = load_served(wanted, models, admin, options); !loaded)
      return Error{loaded.error().code, fmt::format("{}: {}", wanted.where, loaded.error().message),
                   loaded.error().hint};
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
      return Error{ErrorCode::kInvalidArgument, fmt::format("--adapter {}: expected NAME=PATH", adapter),
                   "--adapter support=runs/lora/package"};
    if (!base)
      return Error{ErrorCode::kInvalidArgument, "--adapter needs a base model to stand on", "name it with --model"};
    TAILOR_CHECK(check_served_name(adapter.substr(0, equals)));
    TAILOR_TRY(auto model, serve_adapter(*base, adapter.substr(equals + 1), adapter.substr(0, equals)));
    models.put(std::move(model));
  }
  if (models.list().empty())
    return Error{ErrorCode::kInvalidArgument, "there is nothing to serve",
                 "name a package, or a base model with --model"};
  return {};
}

/// The store, where there is a place for it. Null: nobody named one, and the usual place cannot be made.
Result<std::unique_ptr<Store>> open_store(const ServeRequest& request, Logger& log) {
  const std::filesystem::path directory = request.data.empty() ? default_store_directory() : request.data;
  std::error_code ignored;
  const bool there = !directory.empty() && std::filesystem::exists(directory, ignored);
  if (directory.empty() && !request.keys_required) return std::unique_ptr<Store>();
  auto store = Store::open(directory, {.check_integrity = true});
  // One that is there may hold keys: without them everybody would come in.
  if (store || !request.data.empty() || there || request.keys_required) return store;
  log.warning(fmt::format("without keys and packages by name, since {} cannot be made: {}", directory.string(),
                          store.error().message));
  return std::unique_ptr<Store>();
}

void read_again(const ServeRequest& request, Store* store, KeyDoor* door, HttpServer& server, Logger& log) {
  if (door != nullptr) {
    auto fixed = read_fixed_keys(request.keys_file);
    const Status taken = fixed ? store->keys().set_fixed(std::move(*fixed)) : Status(fixed.error());
    if (!taken) log.warning("the keys stay as they were: " + to_string(taken.error()));
    door->look();
  }
  if (const Status tls = server.reload_tls(); !tls)
    log.warning("the certificates stay as they were: " + to_string(tls.error()));
  log.info("keys and certificates were read again");
}

/// Takes up what is in production beside the loop that hears signals: models may take long to load.
/// Threads: one at a time. Its end waits for what is being loaded.
class ProductionFollower {
 public:
  /// All outlive this.
  ProductionFollower(ModelAdmin& admin, Logger& log, const CancelToken& stop) : admin_(admin), log_(log), stop_(stop) {}

  void ask() { asked_ = true; }
  /// Now and then: begins what was asked for, once no other model is being loaded, and tells of its end.
  void look() {
    if (looking_.valid()) {
      if (looking_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
      if (looking_.get())
        log_.info("packages in production were read again");
      else
        asked_ = true;
    }
    if (std::exchange(asked_, false))
      looking_ = std::async(std::launch::async, [this] { return admin_.follow_production(stop_); });
  }

 private:
  ModelAdmin& admin_;
  Logger& log_;
  const CancelToken& stop_;
  bool asked_ = false;
  std::future<bool> looking_;  // last
};

/// Who comes while answers are on their way hears that the server shuts down, and can ask for its health; then the
/// listeners close.
void end_with_answers(ApiServer& api, BatchRunner* batches, HttpServer& server, std::chrono::seconds timeout) {
  const SteadyTime end = std::chrono::steady_clock::now() + timeout;
  const auto until = [&](auto holds) {
    while (std::chrono::steady_clock::now() < end && !holds()) {
    }
  };
  api.drain();
  server.drain();
  if (batches != nullptr) batches->drain();
  until([&] { return server.wait_answered(kLook); });
  until([&] { return batches == nullptr || batches->wait_idle(kLook); });
  server.stop_accepting();
  until([&] { return server.wait_drained(kLook); });
  server.stop();
  api.stop();
}

/// An address that other machines reach.
bool is_open(const HttpEndpoint& endpoint) {
  return endpoint.unix_path.empty() && endpoint.host != "localhost" && endpoint.host != "::1" &&
         !endpoint.host.starts_with("127.");
}

void write_log_metrics(const LogSink* sink, MetricText& out) {
  out.counter("tailor_log_lines_dropped_total", "Lines of the log that nobody took in time, or no disk had room for.");
  out.sample({}, sink != nullptr ? sink->dropped() : std::uint64_t{0});
}

}  // namespace

Status check_tls(const ServeRequest& request) {
  const bool certificate = !request.tls_certificate.empty(), key = !request.tls_key.empty();
  std::string given;
  for (const auto& [there, name] :
       {std::pair(certificate, "certificate"), std::pair(key, "key"),
        std::pair(!request.tls_client_ca.empty(), "client_ca"), std::pair(request.hsts_days > 0, "hsts_days")}) {
    if (there) given += (given.empty() ? "" : ", ") + std::string(name);
  }
  if (given.empty() || (certificate && key)) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("TLS needs certificate and key: given {}, missing {}", given,
                           certificate ? "key"
                           : key       ? "certificate"
                                       : "certificate and key"),
               "name both with --tls-certificate and --tls-key, or under tls in serve.yaml; without TLS name neither"};
}

Status serve(const ServeRequest& request, Logger& log,
             const std::function<void(const std::vector<std::string>&)>& ready, const CancelToken& stop) {
  give_large_blocks_back();
  TAILOR_CHECK(check_tls(request));
  TAILOR_TRY(const std::unique_ptr<Store> store, open_store(request, log));
  std::unique_ptr<KeyDoor> door;
  TAILOR_TRY(auto fixed, read_fixed_keys(request.keys_file));
  if (store) {
    TAILOR_CHECK(store->keys().set_fixed(std::move(fixed)));
    // Who names a file of keys wants nobody else, whatever is left in it.
    const bool required = request.keys_required || !request.keys_file.empty();
    door = std::make_unique<KeyDoor>(*store, log, KeyDoorOptions{.required = required, .clock = {}});
  } else if (!request.keys_file.empty() || !fixed.empty()) {
    return Error{ErrorCode::kInvalidArgument, "keys need a place where their use is kept account of",
                 "name one with --data DIR"};
  }
  const bool keyed = door && door->closed();
  HttpServerOptions options;
  options.limits = request.http_limits;
  options.limits.parser.names_under = api_names_under();
  options.timeouts = request.timeouts;
  options.hsts = std::chrono::hours(24) * request.hsts_days;
  for (const std::string& listen : request.listen) {
    TAILOR_TRY(HttpEndpoint endpoint, parse_endpoint(listen));
    if (is_open(endpoint) && !keyed)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--listen {}: other machines could use this server, and there are no keys", listen),
                   "make one with `tailor keys create --name NAME`, let nobody in before there is one with "
                   "--keys-required, or listen on 127.0.0.1"};
    if (!request.tls_certificate.empty())
      endpoint.tls = TlsFiles{request.tls_certificate, request.tls_key, request.tls_client_ca};
    options.endpoints.push_back(std::move(endpoint));
  }
  const auto share = std::make_shared<ComputeShare>(request.threads > 0 ? request.threads : system_info().cores);
  // Before the models, which may hold a request to their end.
  std::optional<ServerMetrics> metrics;
  std::optional<RequestLog> request_log;
  std::optional<TraceExporter> traces;
  const ModelLoadOptions load{.threads = request.threads,
                              .cache_bytes = request.cache_bytes,
                              .cache = std::make_shared<CacheBudget>(
                                  request.cache_bytes > 0 ? request.cache_bytes : system_info().memory_bytes / 4),
                              .max_context = request.max_context,
                              .queue = request.queue,
                              .share = share,
                              .nearest_rows = request.nearest_rows};
  ModelRegistry models;  // after the door: requests that its end waits for have a place there
  metrics.emplace(models, ServerMetricsOptions{.vllm_names = request.vllm_metrics});
  ModelAdmin admin(models, store.get(), load, request.adapters_root, log);
  TAILOR_CHECK(load_models(request, models, admin, load));
  OpenDoor open;
  ApiServerOptions api_options;
  api_options.limits = request.limits;
  // Without keys nobody else's page may use this server by a name of its own.
  if (!keyed) api_options.hosts = {"localhost", "127.0.0.1", "::1", ""};
  const ListedOrigins origins(request.allowed_origins);
  if (!request.allowed_origins.empty()) api_options.origins = &origins;
  api_options.observers.push_back(&*metrics);
  if (request.log_sink != nullptr && request.log_requests)
    api_options.observers.push_back(&request_log.emplace(*request.log_sink, request.request_log_options));
  if (request.traces && !request.traces->endpoint.empty())
    api_options.observers.push_back(&traces.emplace(*request.traces, log));
  // Every series is there, whatever is turned off.
  metrics->add([sink = request.log_sink](MetricText& out) { write_log_metrics(sink, out); });
  metrics->add([&traces](MetricText& out) { traces ? traces->write_metrics(out) : TraceExporter::write_zeros(out); });
  ApiServer api(models, door ? static_cast<Authenticator&>(*door) : open, log, api_options);
  api.services().admin = &admin;
  TuneRecipeTuner tuner(request.threads);
  std::unique_ptr<FineTuning> tuning;
  if (store) {
    tuning = std::make_unique<FineTuning>(*store, models, tuner, load, log);
    tuning->serve_finished();
    api.services().store = store.get();
    api.services().tuning = tuning.get();
  }
  std::unique_ptr<BatchRunner> batches;
  if (store) {
    batches = std::make_unique<BatchRunner>(api.services(), door ? static_cast<Authenticator&>(*door) : open,
                                            api.observers(), BatchOptions{.input = {}, .clock = {}});
    api.services().batches = batches.get();
  }
  metrics->add([&batches](MetricText& out) { batches ? batches->write_metrics(out) : BatchRunner::write_zeros(out); });
  HttpServer server(api, options);
  api.services().metrics = &*metrics;
  metrics->set_draining(api.services().draining);
  metrics->watch_http(server.metrics());
  TAILOR_CHECK(server.start());
  std::vector<std::string> addresses;
  for (const HttpEndpoint& endpoint : server.endpoints())
    addresses.push_back((endpoint.tls ? "https://" : "http://") + to_string(endpoint));
  ready(addresses);
  ProductionFollower production(admin, log, stop);
  while (!stop.cancelled()) {
    std::this_thread::sleep_for(kLook);
    if (request.reload != nullptr && request.reload->exchange(false)) {
      read_again(request, store.get(), door.get(), server, log);
      production.ask();
    }
    production.look();
  }
  end_with_answers(api, batches.get(), server, request.drain_timeout);
  return {};
}

}  // namespace tailor
