#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "apps/tailor/arguments.h"
#include "apps/tailor/store_options.h"
#include "apps/tailor/verbs.h"
#include "core/private_memory.h"
#include "core/service_manager.h"
#include "recipes/serve.h"
#include "recipes/serve_config.h"
#include "serve/http_message.h"

namespace tailor {
namespace {

struct MonitorFlags {
  std::string compatible, level = "info", trace_endpoint;
  LogSinkOptions log;
  std::string log_max_age;
  bool no_request_log = false, no_addresses = false;
  double trace_ratio = 1;
};

std::atomic<bool> g_reload{false};  // signal handlers can reach nothing else

/// Connections are file descriptors, and a program has few of them unless it asks for what it may have.
void allow_connections() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // where it fails there are those there were
}

void on_hangup(int) {
  g_reload.store(true);
}

/// `--tls-key "$KEY"` of a variable that is not set must not end in plain HTTP, nor such a --config in an open server.
Status check_files(const CLI::App& verb) {
  for (const char* flag : {"--config", "--tls-certificate", "--tls-key", "--tls-client-ca"}) {
    const auto& given = verb[flag]->results();
    if (std::find(given.begin(), given.end(), "") != given.end())
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} names no file: it is empty", flag),
                   "name one, or leave the flag out"};
  }
  return {};
}

/// The file's settings, with what the command line said in their place.
Result<ServeRequest> with_file(const ServeRequest& typed, const std::string& file, const CLI::App& verb) {
  if (file.empty()) return typed;
  TAILOR_TRY(ServeRequest out, read_serve_config(file));
  const auto given = [&](const char* option) { return verb.count(option) > 0; };
  if (given("--listen") || given("--port")) out.listen = typed.listen;
  if (given("--tls-certificate")) out.tls_certificate = typed.tls_certificate;
  if (given("--tls-key")) out.tls_key = typed.tls_key;
  if (given("--tls-client-ca")) out.tls_client_ca = typed.tls_client_ca;
  if (given("--threads")) out.threads = typed.threads;
  if (given("--cache-bytes")) out.cache_bytes = typed.cache_bytes;
  if (given("--max-context")) out.max_context = typed.max_context;
  if (given("--no-nearest-rows")) out.nearest_rows = false;
  if (typed.keys_required) out.keys_required = true;
  if (given("--data")) out.data = typed.data;
  if (given("package") || given("--model")) out.served.clear();
  out.packages = typed.packages;
  out.models = typed.models;
  out.adapters = typed.adapters;
  return out;
}

void add_monitor_flags(CLI::App& verb, MonitorFlags& flags) {
  verb.add_option("--metrics-compat", flags.compatible, "/metrics under another server's names as well: vllm")
      ->check(CLI::IsMember({"vllm"}).description(""))
      ->type_name("NAMES");
  verb.add_option("--log-file", flags.log.file, "where the log goes, readable by you alone (standard error)")
      ->type_name("FILE");
  verb.add_option("--log-max-bytes", flags.log.max_bytes, "of the log file and the one before it together (100MiB)")
      ->transform(CLI::AsSizeValue(true))
      ->type_name("SIZE");
  verb.add_option("--log-max-age", flags.log_max_age, "how long a line stays in them, such as 30d (as long as fits)")
      ->type_name("TIME");
  verb.add_option("--log-level", flags.level, "debug, info or warning")
      ->check(CLI::IsMember({"debug", "info", "warning"}).description(""))
      ->capture_default_str()
      ->type_name("LEVEL");
  verb.add_flag("--no-request-log", flags.no_request_log, "no line for each request");
  verb.add_flag("--no-log-addresses", flags.no_addresses, "no addresses of clients in the log");
  verb.add_option("--trace-endpoint", flags.trace_endpoint,
                  "OpenTelemetry collector, OTLP over HTTP ($OTEL_EXPORTER_OTLP_ENDPOINT); its headers come from "
                  "$OTEL_EXPORTER_OTLP_HEADERS")
      ->type_name("URL");
  verb.add_option("--trace-ratio", flags.trace_ratio, "share of requests to trace whose client does not say")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->capture_default_str()
      ->type_name("SHARE");
}

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

/// "name=value,name=value", values percent-encoded: never on a command line, where other users see them.
Result<std::vector<std::pair<std::string, std::string>>> header_list(const std::string& text, const char* where) {
  std::vector<std::pair<std::string, std::string>> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, end - at);
    at = end + 1;
    const std::size_t equals = item.find('=');
    const auto value = equals == std::string::npos ? std::nullopt : percent_decode(item.substr(equals + 1));
    if (equals == 0 || !value)
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: expected name=value, separated by commas", where), ""};
    out.emplace_back(item.substr(0, equals), *value);
  }
  return out;
}

/// What the command line says takes the place of the file's settings; the environment names what neither does.
Status apply(const MonitorFlags& flags, const CLI::App& verb, ServeRequest& request) {
  const auto given = [&](const char* option) { return verb.count(option) > 0; };
  if (given("--metrics-compat")) request.vllm_metrics = flags.compatible == "vllm";
  if (given("--log-file")) request.log.file = flags.log.file;
  if (given("--log-max-bytes")) request.log.max_bytes = flags.log.max_bytes;
  if (given("--log-max-age")) {
    TAILOR_TRY(const double seconds, parse_duration(flags.log_max_age));
    request.log.max_age = std::chrono::seconds(std::llround(seconds));
  }
  if (given("--log-level")) {
    request.request_log_options.least = flags.level == "debug"  ? LogLevel::kDebug
                                        : flags.level == "info" ? LogLevel::kInfo
                                                                : LogLevel::kWarning;
  }
  if (flags.no_addresses) request.request_log_options.addresses = false;
  if (flags.no_request_log) request.log_requests = false;
  TraceOptions traces = request.traces.value_or(TraceOptions{});
  if (given("--trace-endpoint")) traces.endpoint = flags.trace_endpoint;
  if (given("--trace-ratio")) traces.ratio = flags.trace_ratio;
  if (traces.endpoint.empty()) traces.endpoint = from_environment("OTEL_EXPORTER_OTLP_ENDPOINT");
  request.traces.reset();
  if (traces.endpoint.empty()) return {};
  if (!traces.endpoint.starts_with("http://") && !traces.endpoint.starts_with("https://"))
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--trace-endpoint {}: expected an http or https URL", traces.endpoint),
                 "--trace-endpoint http://127.0.0.1:4318"};
  TAILOR_TRY(traces.fields, header_list(from_environment("OTEL_EXPORTER_OTLP_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS"));
  const std::string name = from_environment("OTEL_SERVICE_NAME");
  if (!name.empty() && traces.service_name == TraceOptions{}.service_name) traces.service_name = name;
  request.traces = std::move(traces);
  return {};
}

}  // namespace

void add_serve(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("serve", "answer over HTTP as OpenAI's API does: packages, base models, adapters");
  auto request = std::make_shared<ServeRequest>();
  ServeRequest& r = *request;
  auto port = std::make_shared<int>(0);
  auto file = std::make_shared<std::string>();
  auto data = std::make_shared<std::string>();
  verb->add_option(
          "package", r.packages,
          "package directories of fit or tune, or NAME or NAME@VERSION of `tailor packages`; a directory comes first")
      ->type_name("PACKAGE");
  verb->add_option("--config", *file, "serve.yaml, see docs/SERVE.md; flags win over it")->type_name("FILE");
  add_data_option(*verb, *data);
  verb->add_option("--model", r.models,
                   "a base model: a name, a GGUF file or a Hugging Face directory; may be given several times")
      ->allow_extra_args(false)
      ->type_name("MODEL");
  verb->add_option("--adapter", r.adapters,
                   "an adapter or soft prompt of the first base model, and its name; may be given several times")
      ->allow_extra_args(false)
      ->type_name("NAME=PATH");
  auto* listen = verb->add_option("--listen", r.listen, "address and port, or unix:PATH; may be given several times")
                     ->allow_extra_args(false)
                     ->capture_default_str()
                     ->type_name("ADDRESS");
  verb->add_option("--port", *port, "of 127.0.0.1; short for --listen 127.0.0.1:PORT")
      ->check(CLI::Range(0, 65535).description(""))
      ->excludes(listen)
      ->type_name("PORT");
  verb->add_option("--tls-certificate", r.tls_certificate,
                   "PEM file of the server's certificate and those up to the root")
      ->type_name("FILE");
  verb->add_option("--tls-key", r.tls_key, "PEM file of its key, readable by its owner alone")->type_name("FILE");
  verb->add_option("--tls-client-ca", r.tls_client_ca, "clients must show a certificate signed by one of these")
      ->type_name("FILE");
  verb->add_option("--threads", r.threads, "threads (all cores)")->check(CLI::PositiveNumber)->type_name("N");
  verb->add_option(
          "--cache-bytes", r.cache_bytes,
          "memory for keys and values of prompts and answers, of all models together, such as 2GB (a quarter of the "
          "machine's)")
      ->transform(CLI::AsSizeValue(true))
      ->type_name("SIZE");
  verb->add_option("--max-context", r.max_context,
                   "longest prompt and answer together, in tokens (as the model was trained)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_flag("--keys-required", r.keys_required,
                 "no request without a key, also before the first one is made; then it may listen at any address");
  verb->add_flag_callback(
      "--no-nearest-rows", [request] { request->nearest_rows = false; },
      "training rows that packages hold cannot be asked for");
  auto monitor = std::make_shared<MonitorFlags>();
  add_monitor_flags(*verb, *monitor);
  verb->footer(
      "Examples:  tailor serve runs/support/package\n"
      "           tailor serve --model smollm2-135m-instruct --adapter support=runs/lora/package\n"
      "           tailor serve --config serve.yaml\n"
      "           curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "             -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'");
  verb->callback([&invocation, request, port, file, data, verb, monitor] {
    if (verb->count("--port") > 0) request->listen = {fmt::format("127.0.0.1:{}", *port)};
    request->data = *data;
    invocation.run = [&invocation, request, file, verb, monitor]() -> Result<int> {
      if (from_environment("TAILOR_CORE_DUMPS").empty()) TAILOR_CHECK(keep_memory_private());
      TAILOR_CHECK(check_files(*verb));
      TAILOR_TRY(ServeRequest wanted, with_file(*request, *file, *verb));
      TAILOR_CHECK(apply(*monitor, *verb, wanted));
      TAILOR_TRY(const auto sink, LogSink::open(wanted.log));
      JsonLogger log(*sink, wanted.request_log_options.least);
      wanted.log_sink = sink.get();
      allow_connections();
      wanted.reload = &g_reload;
      struct sigaction hangup {};
      hangup.sa_handler = on_hangup;
      sigaction(SIGHUP, &hangup, nullptr);
      const auto ready = [](const std::vector<std::string>& addresses) {
        for (const std::string& address : addresses) fmt::print("tailor serves at {}\n", address);
        std::fflush(stdout);
        tell_service_manager("READY=1");
      };
      TAILOR_CHECK(serve(wanted, log, ready, invocation.cancel));
      return 0;
    };
  });
}

}  // namespace tailor
