// Load on an HTTP server: bodies posted over plain sockets that stay open, a thread each, closed loop.
//   bench_post_load PORT --path /v1/classify --bodies bodies.jsonl --connections 16 [--answers answers.jsonl]
// Prints one JSON line: requests a second, latency, failures. The answers stand in the order of the bodies, a line
// each.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "load_connection.h"

namespace {

using tailor::bench::Connection;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The answer's body; empty and false where the status is not 200 or the connection broke.
bool post(Connection& connection, const std::string& head, const std::string& body, std::string& answer) {
  connection.send_all(head + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  std::string line;
  if (!connection.line(line)) return false;
  const bool good = line.find(" 200") != std::string::npos;
  std::size_t length = 0;
  while (connection.line(line) && !line.empty()) {
    std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) { return std::tolower(c); });
    if (line.starts_with("content-length:")) length = std::stoul(line.substr(15));
  }
  return connection.bytes(length, answer) && good;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  int port = 0;
  std::size_t connections = 1, warm = 8;
  std::string path = "/v1/classify", bodies_file, answers_file;
  app.add_option("port", port)->required();
  app.add_option("--path", path);
  app.add_option("--bodies", bodies_file, "a JSON body a line")->required();
  app.add_option("--connections", connections);
  app.add_option("--warm", warm, "the first so many bodies, posted once by each connection before the clock runs");
  app.add_option("--answers", answers_file);
  CLI11_PARSE(app, argc, argv);

  std::vector<std::string> bodies;
  std::ifstream in(bodies_file);
  for (std::string line; std::getline(in, line);) bodies.push_back(line);
  const std::string head = "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  std::vector<std::string> answers(bodies.size());
  std::vector<double> seconds(bodies.size());
  std::atomic<std::size_t> next{0}, failed{0};
  std::barrier ready(static_cast<std::ptrdiff_t>(connections) + 1);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < connections; ++t) {
    threads.emplace_back([&] {
      auto connection = std::make_unique<Connection>(port);
      std::string ignored;
      for (std::size_t i = 0; i < std::min(warm, bodies.size()); ++i) post(*connection, head, bodies[i], ignored);
      ready.arrive_and_wait();
      for (std::size_t i; (i = next.fetch_add(1)) < bodies.size();) {
        const double begin = now();
        if (!post(*connection, head, bodies[i], answers[i])) {
          ++failed;
          connection = std::make_unique<Connection>(port);
        }
        seconds[i] = now() - begin;
      }
    });
  }
  ready.arrive_and_wait();
  const double begin = now();
  for (std::thread& thread : threads) thread.join();
  const double all = now() - begin;
  if (!answers_file.empty()) {
    std::ofstream out(answers_file);
    for (const std::string& answer : answers) {
      const auto json = nlohmann::json::parse(answer, nullptr, false);  // on one line, however it came
      out << (json.is_discarded() ? "null" : json.dump()) << "\n";
    }
  }
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    return 1000 *
           seconds[std::min(seconds.size() - 1, static_cast<std::size_t>(share * static_cast<double>(seconds.size())))];
  };
  const nlohmann::json out{{"connections", connections},
                           {"requests", bodies.size()},
                           {"failed", failed.load()},
                           {"seconds", all},
                           {"requests_per_second", static_cast<double>(bodies.size()) / all},
                           {"p50_ms", at(0.5)},
                           {"p95_ms", at(0.95)},
                           {"p99_ms", at(0.99)}};
  std::printf("%s\n", out.dump().c_str());
  return failed.load() == 0 ? 0 : 1;
}
