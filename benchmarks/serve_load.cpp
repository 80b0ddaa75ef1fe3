// Load on an OpenAI-compatible server: concurrent streaming chats over plain sockets, a thread each, closed loop.
//   bench_serve_load PORT --chats 16 --requests 64 --shared 500 --own 40 --answer 64 [--models a,b,c] [--key K]
// Prints one JSON line: tokens a second, time to the first token, between tokens, whole, failures.
#include <CLI/CLI.hpp>
#include <atomic>
#include <barrier>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "load_connection.h"
#include "load_text.h"

namespace {

using Json = nlohmann::json;
using tailor::bench::Connection;
using tailor::bench::percentile;
using tailor::bench::words;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Totals {
  std::mutex mutex;
  std::vector<double> first, between, whole;
  std::uint64_t tokens = 0, prompt = 0, cached = 0;
  int failed = 0;
  std::string failure;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  int port = 0, chats = 1, requests = 4, shared = 500, own = 40, answer = 64, warm = 1;
  std::vector<std::string> models{""}, loras;
  std::string key;
  app.add_option("port", port)->required();
  app.add_option("--chats", chats);
  app.add_option("--requests", requests, "of all chats together");
  app.add_option("--shared", shared, "words of the system's prompt");
  app.add_option("--own", own);
  app.add_option("--answer", answer);
  app.add_option("--models", models, "one chat after the other takes the next")->delimiter(',');
  app.add_option("--lora-count", loras, "llama-server: adapters, chosen by id for each request")->delimiter(',');
  app.add_option("--warm", warm,
                 "requests of each chat before the clock runs, so that both servers hold the system's prompt");
  app.add_option("--key", key);
  CLI11_PARSE(app, argc, argv);

  const std::string system = words(1, shared);
  std::atomic<int> next{0};
  Totals totals;
  const auto chat = [&](std::unique_ptr<Connection>& held, int number, bool counted) {
    Json body{{"messages",
               {{{"role", "system"}, {"content", system}},
                {{"role", "user"}, {"content", words(1000 + static_cast<std::uint64_t>(number + 10), own)}}}},
              {"max_tokens", answer},
              {"temperature", 0},
              {"ignore_eos", true},
              {"stream", true},
              {"stream_options", {{"include_usage", true}}}};
    const auto which = static_cast<std::size_t>(number < 0 ? 0 : number);
    if (!models[which % models.size()].empty()) body["model"] = models[which % models.size()];
    if (!loras.empty()) {
      body["lora"] = Json::array();
      for (std::size_t i = 0; i < loras.size(); ++i)
        body["lora"].push_back({{"id", i}, {"scale", i == which % loras.size() ? 1.0 : 0.0}});
    }
    const std::string text = body.dump();
    const double begin = now();
    const std::string request =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
        (key.empty() ? std::string() : "Authorization: Bearer " + key + "\r\n") +
        "Content-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
    std::string line, status;
    double first = -1, last = -1;
    std::vector<double> gaps;
    Json usage;
    bool done = false;
    held->send_all(request);
    if (!held->line(status)) {  // a server may close a connection between two requests
      held = std::make_unique<Connection>(port);
      held->send_all(request);
      held->line(status);
    }
    Connection& connection = *held;
    while (connection.good() && connection.line(line)) {
      if (line.rfind("data: ", 0) != 0) {
        if (line == "0" && done) {  // the last chunk
          connection.line(line);
          break;
        }
        if (status.find(" 200") == std::string::npos && line.empty()) break;
        continue;
      }
      if (line == "data: [DONE]") {
        done = true;
        continue;
      }
      const Json event = Json::parse(line.substr(6), nullptr, false);
      if (event.is_discarded()) continue;
      if (event.contains("usage") && event["usage"].is_object()) usage = event["usage"];
      if (!event.contains("choices") || event["choices"].empty()) continue;
      const Json& delta = event["choices"][0]["delta"];
      if (!delta.contains("content") || !delta["content"].is_string() ||
          delta["content"].get_ref<const std::string&>().empty())
        continue;
      const double at = now();
      if (first < 0)
        first = at;
      else
        gaps.push_back(at - last);
      last = at;
    }
    const std::lock_guard lock(totals.mutex);
    if (!counted) return done;
    if (!done || first < 0) {
      ++totals.failed;
      if (totals.failure.empty()) totals.failure = status;
      return false;
    }
    totals.first.push_back(first - begin);
    totals.whole.push_back(now() - begin);
    totals.between.insert(totals.between.end(), gaps.begin(), gaps.end());
    totals.tokens += usage.value("completion_tokens", std::uint64_t{0});
    totals.prompt += usage.value("prompt_tokens", std::uint64_t{0});
    if (usage.contains("prompt_tokens_details") && usage["prompt_tokens_details"].is_object())
      totals.cached += usage["prompt_tokens_details"].value("cached_tokens", std::uint64_t{0});
    return done;
  };
  std::barrier ready(chats + 1);
  std::vector<std::thread> threads;
  for (int t = 0; t < chats; ++t) {
    threads.emplace_back([&, t] {
      auto connection = std::make_unique<Connection>(port);
      for (int i = 0; i < warm; ++i) chat(connection, 100'000 + t * warm + i, false);
      ready.arrive_and_wait();
      for (;;) {
        const int number = next.fetch_add(1);
        if (number >= requests) return;
        if (!chat(connection, number, true)) connection = std::make_unique<Connection>(port);
      }
    });
  }
  ready.arrive_and_wait();
  const double begin = now();
  for (std::thread& t : threads) t.join();
  const double seconds = now() - begin;
  const Json out{{"chats", chats},
                 {"requests", totals.first.size()},
                 {"failed", totals.failed},
                 {"failure", totals.failure},
                 {"seconds", seconds},
                 {"tokens_per_second", static_cast<double>(totals.tokens) / seconds},
                 {"first_token_p50_ms", 1000 * percentile(totals.first, 0.5)},
                 {"first_token_p95_ms", 1000 * percentile(totals.first, 0.95)},
                 {"between_tokens_p50_ms", 1000 * percentile(totals.between, 0.5)},
                 {"between_tokens_p95_ms", 1000 * percentile(totals.between, 0.95)},
                 {"whole_p95_ms", 1000 * percentile(totals.whole, 0.95)},
                 {"prompt_tokens", totals.prompt},
                 {"cached_tokens", totals.cached}};
  std::printf("%s\n", out.dump().c_str());
  return totals.failed == 0 ? 0 : 1;
}
