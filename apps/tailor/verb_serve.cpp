#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "apps/tailor/verbs.h"
#include "recipes/serve.h"

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

}  // namespace

void add_serve(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("serve", "answer over HTTP as OpenAI's API does: packages, base models, adapters");
  auto request = std::make_shared<ServeRequest>();
  ServeRequest& r = *request;
  auto port = std::make_shared<int>(0);
  verb->add_option("package", r.packages, "package directories of fit or tune")->type_name("PACKAGE");
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
  auto compatible = std::make_shared<std::string>();
  verb->add_option("--metrics-compat", *compatible, "/metrics under another server's names as well: vllm")
      ->check(CLI::IsMember({"vllm"}).description(""))
      ->type_name("NAMES");
  verb->footer(
      "Examples:  tailor serve runs/support/package\n"
      "           tailor serve --model smollm2-135m-instruct --adapter support=runs/lora/package\n"
      "           curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "             -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'");
  verb->callback([&invocation, request, port, verb, compatible] {
    request->vllm_metrics = *compatible == "vllm";
    if (verb->count("--port") > 0) request->listen = {fmt::format("127.0.0.1:{}", *port)};
    invocation.run = [&invocation, request]() -> Result<int> {
      ErrorLog log;
      const auto ready = [](const std::vector<std::string>& addresses) {
        for (const std::string& address : addresses) fmt::print("tailor serves at {}\n", address);
        std::fflush(stdout);
      };
      TAILOR_CHECK(serve(*request, log, ready, invocation.cancel));
      return 0;
    };
  });
}

}  // namespace tailor
