// Clients that do not wait for one another, and such as go away, against an OpenAI-compatible server; one thread,
// epoll.
//   bench_serve_storm PORT --rate 24 --seconds 120 --warm 30 --deadline 60       requests arrive by a Poisson process
//   bench_serve_storm PORT --at-once 64 --seconds 60 --warm 10                   as many under way at a time
//   bench_serve_storm PORT --at-once 16 --aborts 10000 --mix chat=4,whole=2,models=1
// Prints one JSON line at the end, and with --every one for each so many seconds.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "load_text.h"

namespace {

using Json = nlohmann::json;
using tailor::Rng;
using tailor::bench::percentile;
using tailor::bench::words;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Options {
  int port = 0, at_once = 0, shared = 500, own = 40, answer = 64, addresses = 1;
  double rate = 0, seconds = 10, warm = 0, deadline = 600, every = 0;
  std::uint64_t aborts = 0, requests = 0, seed = 1;
  double abort_share = 0;
  std::vector<std::string> mix{"chat=1"}, chat_models{""};
  std::string label_model, vector_model, key;
};

/// A request as it goes over the wire.
std::string wire(const Options& options, const std::string& path, const Json& body) {
  const std::string text = body.is_null() ? "" : body.dump();
  std::string out = std::string(body.is_null() ? "GET " : "POST ") + path + " HTTP/1.1\r\nHost: localhost\r\n";
  if (!options.key.empty()) out += "Authorization: Bearer " + options.key + "\r\n";
  if (!body.is_null())
    out += "Content-Type: application/json\r\nContent-Length: " + std::to_string(text.size()) + "\r\n";
  return out + "\r\n" + text;
}

std::string make_request(const Options& options, const std::string& kind, std::uint64_t number) {
  if (kind == "models") return wire(options, "/v1/models", nullptr);
  static const std::string shared = words(1, options.shared);
  const std::string own = words(1000 + number, options.own);
  if (kind == "classify") return wire(options, "/v1/classify", {{"model", options.label_model}, {"input", own}});
  if (kind == "embeddings") return wire(options, "/v1/embeddings", {{"model", options.vector_model}, {"input", own}});
  Json body{{"max_tokens", options.answer}, {"temperature", 0}, {"ignore_eos", true}};
  if (const std::string& model = options.chat_models[number % options.chat_models.size()]; !model.empty())
    body["model"] = model;
  if (kind == "completion") {
    body["prompt"] = own;
    return wire(options, "/v1/completions", body);
  }
  body["messages"] = {{{"role", "system"}, {"content", shared}}, {{"role", "user"}, {"content", own}}};
  if (kind == "chat") {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
  }
  return wire(options, "/v1/chat/completions", body);
}

/// What came back so far of one answer.
struct Reply {
  std::string bytes;
  std::size_t body = 0;  // where it begins; 0: the head is not complete
  int status = 0;
  bool chunked = false, close = false;
  std::size_t length = 0;
  int retry_after = -1;

  static std::string field(const std::string& head, const std::string& name) {
    const std::size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const std::size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find('\r', begin) - begin);
  }
  bool complete() {
    if (body == 0) {
      const std::size_t end = bytes.find("\r\n\r\n");
      if (end == std::string::npos) return false;
      body = end + 4;
      const std::string head = bytes.substr(0, end + 2);
      status = std::atoi(head.substr(head.find(' ') + 1, 3).c_str());
      chunked = field(head, "Transfer-Encoding") == "chunked";
      close = field(head, "Connection") == "close";
      length = std::strtoull(field(head, "Content-Length").c_str(), nullptr, 10);
      if (const std::string after = field(head, "Retry-After"); !after.empty()) retry_after = std::atoi(after.c_str());
    }
    return chunked ? bytes.ends_with("\r\n0\r\n\r\n") : bytes.size() >= body + length;
  }
  std::uint64_t answer_tokens() const {
    const std::size_t at = bytes.rfind("\"completion_tokens\":");
    return at == std::string::npos ? 0 : std::strtoull(bytes.c_str() + at + 20, nullptr, 10);
  }
};

struct Client {
  int fd = -1;
  bool connecting = false, kept = false;
  std::string kind, request;
  std::size_t sent = 0;
  Reply reply;
  double begin = 0;
  std::size_t abort_at = SIZE_MAX;  // bytes sent and received
  bool reset = false;               // goes with RST
};

struct Totals {
  std::map<std::string, std::uint64_t> statuses;
  std::map<std::string, std::vector<double>> seconds;  // of good answers, by kind
  std::vector<double> refusals;
  std::uint64_t begun = 0, good = 0, tokens = 0, refused = 0, told_when = 0, late = 0, aborted = 0, failed = 0;
  int least_retry = 0, most_retry = 0;
  std::string failure;

  Json json(double elapsed) {
    Json kinds = Json::object();
    for (auto& [kind, values] : seconds) {
      kinds[kind] = {{"good", values.size()},
                     {"p50_ms", 1000 * percentile(values, 0.5)},
                     {"p95_ms", 1000 * percentile(values, 0.95)},
                     {"p99_ms", 1000 * percentile(values, 0.99)}};
    }
    return {{"seconds", elapsed},
            {"begun", begun},
            {"good", good},
            {"good_per_second", static_cast<double>(good) / elapsed},
            {"tokens_per_second", static_cast<double>(tokens) / elapsed},
            {"late", late},
            {"aborted", aborted},
            {"failed", failed},
            {"failure", failure},
            {"statuses", statuses},
            {"kinds", kinds},
            {"refused", refused},
            {"refused_with_retry_after", told_when},
            {"retry_after_least", least_retry},
            {"retry_after_most", most_retry},
            {"refusal_p50_ms", 1000 * percentile(refusals, 0.5)},
            {"refusal_p95_ms", 1000 * percentile(refusals, 0.95)},
            {"refusal_max_ms", 1000 * percentile(refusals, 1)}};
  }
};

class Storm {
 public:
  explicit Storm(const Options& options) : options_(options), rng_(options.seed), epoll_(epoll_create1(0)) {
    for (const std::string& item : options.mix) {
      const std::size_t equals = item.find('=');
      const int weight = equals == std::string::npos ? 1 : std::atoi(item.c_str() + equals + 1);
      for (int i = 0; i < weight; ++i) kinds_.push_back(item.substr(0, equals));
    }
  }
  ~Storm() { close(epoll_); }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;

  int run() {
    start_ = now();
    double next_arrival = start_, next_line = start_ + options_.every, next_look = start_;
    const double end = start_ + options_.warm + options_.seconds;
    while (now() < end && !done()) {
      const double at = now();
      if (options_.rate > 0) {
        for (; next_arrival <= at; next_arrival += -std::log(1 - rng_.uniform()) / options_.rate)
          begin(std::make_unique<Client>());
      } else {
        while (static_cast<int>(clients_.size()) < options_.at_once && !done()) begin(std::make_unique<Client>());
      }
      if (options_.every > 0 && at >= next_line) {
        line(part_, options_.every);
        part_ = {};
        next_line += options_.every;
      }
      if (at >= next_look) {
        give_up();
        next_look = at + 0.05;
      }
      const double pause = options_.rate > 0 ? std::clamp(next_arrival - now(), 0.0, 0.01) : 0.01;
      wait(static_cast<int>(std::ceil(1000 * pause)));
    }
    const double elapsed = now() - start_ - options_.warm;
    while (!clients_.empty()) drop(clients_.begin()->first, true);
    line(whole_, elapsed);
    return whole_.failed == 0 ? 0 : 1;
  }

 private:
  bool counts() const { return now() - start_ >= options_.warm; }
  bool done() const {
    if (options_.aborts > 0) return whole_.aborted >= options_.aborts;
    return options_.requests > 0 && whole_.good + whole_.failed + whole_.refused + whole_.late >= options_.requests;
  }
  static void line(Totals& totals, double elapsed) {
    std::printf("%s\n", totals.json(elapsed).dump().c_str());
    std::fflush(stdout);
  }
  template <typename Change>
  void count(const Change& change) {
    change(part_);
    if (counts()) change(whole_);
  }
  void fail(const std::string& why) {
    count([&](Totals& t) {
      ++t.failed;
      if (t.failure.empty()) t.failure = why;
    });
  }

  void begin(std::unique_ptr<Client> client) {
    client->kind = kinds_[rng_.below(kinds_.size())];
    client->request = make_request(options_, client->kind, number_++);
    client->sent = 0;
    client->reply = {};
    client->abort_at = SIZE_MAX;
    if (options_.aborts > 0 || rng_.uniform() < options_.abort_share) {
      // Half of them within the request, half within the answer, whose usual length is known after the first.
      const std::size_t usual = std::max<std::size_t>(64, usual_[client->kind]);
      client->abort_at =
          rng_.below(2) == 0 ? rng_.below(client->request.size() + 1) : client->request.size() + rng_.below(usual);
      client->reset = rng_.below(2) == 0;
    }
    client->begin = now();
    count([](Totals& t) { ++t.begun; });
    if (client->fd < 0 && !connect_to_server(*client)) return fail("no connection");
    const int fd = client->fd;
    clients_[fd] = std::move(client);
    go_on(fd);
  }

  bool connect_to_server(Client& client) {
    client.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client.fd < 0) return false;
    const int one = 1;
    setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    if (options_.addresses > 1) {
      address.sin_addr.s_addr = htonl(
          INADDR_LOOPBACK + 1 + static_cast<std::uint32_t>(number_ % static_cast<std::uint64_t>(options_.addresses)));
      bind(client.fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
    }
    address.sin_port = htons(static_cast<std::uint16_t>(options_.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(client.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      if (errno != EINPROGRESS) {
        close(client.fd);
        return false;
      }
      client.connecting = true;
    }
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.fd = client.fd;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, client.fd, &event);
    return true;
  }

  void wait(int milliseconds) {
    epoll_event events[256];
    const int n = epoll_wait(epoll_, events, 256, milliseconds);
    for (int i = 0; i < n; ++i) {
      const auto found = clients_.find(events[i].data.fd);
      if (found == clients_.end()) continue;
      if (found->second->connecting) {
        if ((events[i].events & EPOLLOUT) == 0) continue;
        found->second->connecting = false;
      }
      go_on(events[i].data.fd);
    }
  }

  /// Sends and receives what can be. The client may be gone afterwards.
  void go_on(int fd) {
    Client& client = *clients_.at(fd);
    if (client.connecting) return;
    const std::size_t to_send = std::min(client.request.size(), client.abort_at);
    while (client.sent < to_send) {
      const ssize_t n = send(fd, client.request.data() + client.sent, to_send - client.sent, MSG_NOSIGNAL);
      if (n <= 0) {
        if (errno == EAGAIN) break;
        return again(fd);
      }
      client.sent += static_cast<std::size_t>(n);
    }
    bool ended = false;
    char bytes[16384];
    for (;;) {
      const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
      if (n < 0 && errno == EAGAIN) break;
      if (n <= 0) {
        ended = true;
        break;
      }
      client.reply.bytes.append(bytes, static_cast<std::size_t>(n));
    }
    if (client.reply.complete()) return finish(fd);
    if (client.sent + client.reply.bytes.size() >= client.abort_at && client.sent >= to_send) {
      count([](Totals& t) { ++t.aborted; });
      return drop(fd, client.reset);
    }
    if (ended) again(fd);
  }

  /// The server has closed: between two requests it may, then a new connection is made.
  void again(int fd) {
    std::unique_ptr<Client> client = std::move(clients_.at(fd));
    clients_.erase(fd);
    close(fd);
    if (!client->kept || !client->reply.bytes.empty()) return fail("cut: " + client->reply.bytes.substr(0, 200));
    client->kept = false;
    client->sent = 0;
    if (!connect_to_server(*client)) return fail("no connection");
    const int next = client->fd;
    clients_[next] = std::move(client);
    go_on(next);
  }

  void finish(int fd) {
    Client& client = *clients_.at(fd);
    const Reply& reply = client.reply;
    const double seconds = now() - client.begin;
    usual_[client.kind] = std::max(usual_[client.kind], reply.bytes.size());
    const bool whole = client.kind != "chat" || reply.bytes.find("data: [DONE]") != std::string::npos;
    if (reply.status == 200 && whole) {
      count([&](Totals& t) {
        ++t.good;
        t.tokens += reply.answer_tokens();
        t.seconds[client.kind].push_back(seconds);
      });
    } else if (reply.status == 429 || reply.status == 503) {
      count([&](Totals& t) {
        ++t.refused;
        t.refusals.push_back(seconds);
        if (reply.retry_after < 1) return;
        t.least_retry = t.told_when == 0 ? reply.retry_after : std::min(t.least_retry, reply.retry_after);
        t.most_retry = std::max(t.most_retry, reply.retry_after);
        ++t.told_when;
      });
    } else {
      fail(client.kind + ": " + reply.bytes.substr(0, 400) +
           (reply.bytes.size() > 400 ? " … " + reply.bytes.substr(reply.bytes.size() - 300) : ""));
    }
    count([&](Totals& t) { ++t.statuses[std::to_string(reply.status)]; });
    if (options_.rate > 0 || reply.close || done()) return drop(fd, false);
    std::unique_ptr<Client> next = std::move(clients_.at(fd));
    clients_.erase(fd);
    next->kept = true;
    begin(std::move(next));
  }

  void give_up() {
    std::vector<int> late;
    for (const auto& [fd, client] : clients_) {
      if (now() - client->begin > options_.deadline) late.push_back(fd);
    }
    for (const int fd : late) {
      count([](Totals& t) { ++t.late; });
      drop(fd, false);
    }
  }

  void drop(int fd, bool reset) {
    if (reset) {
      const linger now_and_hard{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &now_and_hard, sizeof now_and_hard);
    }
    clients_.erase(fd);
    close(fd);
  }

  const Options& options_;
  Rng rng_;
  int epoll_;
  std::vector<std::string> kinds_;
  std::map<int, std::unique_ptr<Client>> clients_;  // by socket
  std::map<std::string, std::size_t> usual_;        // bytes of an answer, by kind
  std::uint64_t number_ = 0;
  double start_ = 0;
  Totals whole_, part_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  Options options;
  app.add_option("port", options.port)->required();
  app.add_option("--at-once", options.at_once, "requests under way at a time");
  app.add_option("--rate", options.rate, "requests that come in a second, whatever has become of the others");
  app.add_option("--seconds", options.seconds);
  app.add_option("--warm", options.warm, "seconds before that, which do not count");
  app.add_option("--requests", options.requests, "end after so many");
  app.add_option("--aborts", options.aborts, "every client goes at a random byte; end after so many");
  app.add_option("--abort-share", options.abort_share, "of clients that do");
  app.add_option("--deadline", options.deadline, "seconds after which a client gives up");
  app.add_option("--every", options.every, "seconds for each of which a line is printed as well");
  app.add_option("--mix", options.mix, "chat, whole, completion, classify, embeddings, models, with weights")
      ->delimiter(',');
  app.add_option("--chat-models", options.chat_models)->delimiter(',');
  app.add_option("--label-model", options.label_model);
  app.add_option("--vector-model", options.vector_model);
  app.add_option("--shared", options.shared, "words of the system's prompt");
  app.add_option("--own", options.own);
  app.add_option("--answer", options.answer);
  app.add_option("--addresses", options.addresses, "of this machine, from which clients come in turn");
  app.add_option("--seed", options.seed);
  app.add_option("--key", options.key);
  CLI11_PARSE(app, argc, argv);
  return Storm(options).run();
}
