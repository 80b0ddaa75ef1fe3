#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>

#include "apps/tailor/verbs.h"
#include "apps/tailor/store_options.h"
#include "recipes/serve.h"
#include "recipes/serve_config.h"

namespace tailor {
namespace {

/// Lines on standard error.
class ErrorLog final : public Logger {
 public:
  void log(LogLevel level, std::string_view message) override {
    if (level == LogLevel::kDebug) return;
    fmt::print(stderr, "tailor: {}{}\n", level == LogLevel::kWarning ? "warning: " : "", message);
  }
};

std::atomic<bool> g_reload{false};  // signal handlers can reach nothing else

void on_hangup(int) { g_reload.store(true); }

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
  if (given("--data")) out.data = typed.data;
  if (given("package") || given("--model")) out.served.clear();
  out.packages = typed.packages;
  out.models = typed.models;
  out.adapters = typed.adapters;
  return out;
}

}  // namespace

void add_serve(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("serve", "answer over HTTP as OpenAI's API does: packages, base models, adapters");
  auto request = std::make_shared<ServeRequest>();
  ServeRequest& r = *request;
  auto port = std::make_shared<int>(0);
  auto file = std::make_shared<std::string>();
  auto data = std::make_shared<std::string>();
  verb->add_option("package", r.packages, "package directories of fit or tune, or NAME or NAME@VERSION of `tailor packages`; a directory comes first")
      ->type_name("PACKAGE");
  verb->add_option("--config", *file, "serve.yaml, see docs/SERVE.md; flags win over it")->type_name("FILE");
  add_data_option(*verb, *data);
  verb->add_option("--model", r.models, "a base model: a name, a GGUF file or a Hugging Face directory; may be given several times")
      ->allow_extra_args(false)
      ->type_name("MODEL");
  verb->add_option("--adapter", r.adapters, "an adapter or soft prompt of the first base model, and its name; may be given several times")
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
  verb->add_option("--tls-certificate", r.tls_certificate, "PEM file of the server's certificate and those up to the root")->type_name("FILE");
  verb->add_option("--tls-key", r.tls_key, "PEM file of its key, readable by its owner alone")->type_name("FILE");
  verb->add_option("--tls-client-ca", r.tls_client_ca, "clients must show a certificate signed by one of these")->type_name("FILE");
  verb->add_option("--threads", r.threads, "threads (all cores)")->check(CLI::PositiveNumber)->type_name("N");
  verb->add_option("--cache-bytes", r.cache_bytes, "memory for keys and values of prompts and answers, such as 2GB (a quarter of the machine's)")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE");
  verb->add_option("--max-context", r.max_context, "longest prompt and answer together, in tokens (as the model was trained)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->footer(
      "Examples:  tailor serve runs/support/package\n"
      "           tailor serve --model smollm2-135m-instruct --adapter support=runs/lora/package\n"
      "           tailor serve --config serve.yaml\n"
      "           curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "             -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'");
  verb->callback([&invocation, request, port, file, data, verb] {
    if (verb->count("--port") > 0) request->listen = {fmt::format("127.0.0.1:{}", *port)};
    request->data = *data;
    invocation.run = [&invocation, request, file, verb]() -> Result<int> {
      ErrorLog log;
      TAILOR_TRY(ServeRequest wanted, with_file(*request, *file, *verb));
      wanted.reload = &g_reload;
      struct sigaction hangup {};
      hangup.sa_handler = on_hangup;
      sigaction(SIGHUP, &hangup, nullptr);
      const auto ready = [](const std::vector<std::string>& addresses) {
        for (const std::string& address : addresses) fmt::print("tailor serves at {}\n", address);
        std::fflush(stdout);
      };
      TAILOR_CHECK(serve(wanted, log, ready, invocation.cancel));
      return 0;
    };
  });
}

}  // namespace tailor
