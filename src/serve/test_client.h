#pragma once
/// A blocking HTTP client for tests: sends bytes as they are given, reads with a time-out. Throws where the test's own
/// machinery fails.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "serve/http_message.h"

namespace tailor::test {

struct Answer {
  int status = 0;  // 0: the connection ended before an answer
  HttpHeaders headers;
  std::string body;
  bool complete = false;  // the body came to its end
};

class TestClient {
 public:
  static constexpr int kTimeoutMs = 20'000;  // generous: sanitizers, busy machines

  static TestClient to_port(std::uint16_t port, const char* address = "127.0.0.1") {
    if (std::strchr(address, ':') != nullptr) {
      sockaddr_in6 to{};
      to.sin6_family = AF_INET6;
      to.sin6_port = htons(port);
      inet_pton(AF_INET6, address, &to.sin6_addr);
      return TestClient(AF_INET6, &to, sizeof(to));
    }
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    inet_pton(AF_INET, address, &to.sin_addr);
    return TestClient(AF_INET, &to, sizeof(to));
  }
  static TestClient to_unix(const std::filesystem::path& path) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strncpy(to.sun_path, path.c_str(), sizeof(to.sun_path) - 1);
    return TestClient(AF_UNIX, &to, sizeof(to));
  }
  TestClient(TestClient&& other) noexcept : socket_(std::exchange(other.socket_, -1)), read_(std::move(other.read_)) {}
  TestClient& operator=(TestClient&& other) noexcept {
    std::swap(socket_, other.socket_);
    std::swap(read_, other.read_);
    return *this;
  }
  ~TestClient() { close(); }

  int socket() const { return socket_; }
  void close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  /// Ends with RST instead of FIN.
  void abort() {
    const linger now{1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close();
  }
  void end_writing() { shutdown(socket_, SHUT_WR); }
  /// False where the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  /// One answer; `to_head`: it answers a HEAD request and has no body.
  Answer read_answer(bool to_head = false) {
    Answer answer;
    const std::optional<std::string> head = read_through("\r\n\r\n");
    if (!head) return answer;
    answer.status = std::stoi(head->substr(9, 3));
    for (std::size_t at = head->find("\r\n") + 2; at + 2 < head->size();) {
      const std::size_t end = head->find("\r\n", at), colon = head->find(": ", at);
      answer.headers.add(head->substr(at, colon - at), head->substr(colon + 2, end - colon - 2));
      at = end + 2;
    }
    const std::string* length = answer.headers.find("Content-Length");
    if (to_head || !may_have_body(answer.status)) {
      answer.complete = true;
    } else if (answer.headers.find("Transfer-Encoding") != nullptr) {
      read_chunks(answer);
    } else if (length != nullptr) {
      answer.complete = read_bytes(std::stoull(*length), answer.body);
    } else {
      answer.body = read_to_end();
      answer.complete = true;
    }
    return answer;
  }
  Answer ask(std::string_view request) {
    send(request);
    return read_answer(request.substr(0, 5) == "HEAD ");
  }
  Answer get(const std::string& target) { return ask("GET " + target + " HTTP/1.1\r\nHost: test\r\n\r\n"); }

  /// All up to and including `end`; nothing where the connection ends first.
  std::optional<std::string> read_through(std::string_view end) {
    std::size_t found;
    while ((found = read_.find(end)) == std::string::npos) {
      if (!fill()) return std::nullopt;
    }
    std::string out = read_.substr(0, found + end.size());
    read_.erase(0, out.size());
    return out;
  }
  std::string read_to_end() {
    while (fill()) {
    }
    return std::exchange(read_, {});
  }
  /// Whether the server closes without sending more.
  bool closed() { return read_.empty() && !fill(); }

 private:
  TestClient(int family, const void* to, socklen_t size) : socket_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (socket_ < 0) throw std::runtime_error("socket failed");
    if (connect(socket_, static_cast<const sockaddr*>(to), size) != 0) {
      close();
      throw std::runtime_error(std::string("connect failed: ") + std::strerror(errno));
    }
  }
  bool fill() {
    pollfd event{socket_, POLLIN, 0};
    if (poll(&event, 1, kTimeoutMs) <= 0) throw std::runtime_error("the server neither answered nor closed");
    char bytes[64 << 10];
    const ssize_t n = recv(socket_, bytes, sizeof(bytes), 0);
    if (n > 0) read_.append(bytes, static_cast<std::size_t>(n));
    return n > 0;
  }
  bool read_bytes(std::size_t n, std::string& out) {
    while (read_.size() < n) {
      if (!fill()) return false;
    }
    out.append(read_, 0, n);
    read_.erase(0, n);
    return true;
  }
  void read_chunks(Answer& answer) {
    for (;;) {
      const std::optional<std::string> line = read_through("\r\n");
      if (!line) return;
      const std::size_t size = std::stoull(*line, nullptr, 16);
      std::string end;
      if (!read_bytes(size, answer.body) || !read_bytes(2, end) || end != "\r\n") return;
      if (size > 0) continue;
      answer.complete = true;
      return;
    }
  }

  int socket_ = -1;
  std::string read_;
};

}  // namespace tailor::test
