#pragma once
/// A plain socket to a server of this machine, for programs that load one. Threads: one at a time.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace tailor::bench {

class Connection {
 public:
  explicit Connection(int port) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    good_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { close(fd_); }
  bool good() const { return good_; }
  void send_all(const std::string& text) {
    std::size_t at = 0;
    while (good_ && at < text.size()) {
      const ssize_t n = send(fd_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
      good_ = n > 0;
      at += n > 0 ? static_cast<std::size_t>(n) : 0;
    }
  }
  /// Up to and without "\n"; what ends a line is cut.
  bool line(std::string& out) {
    for (;;) {
      const std::size_t end = buffer_.find('\n', from_);
      if (end != std::string::npos) {
        out = buffer_.substr(from_, end - from_);
        if (!out.empty() && out.back() == '\r') out.pop_back();
        take(end + 1);
        return true;
      }
      if (!receive()) return false;
    }
  }
  /// So many bytes.
  bool bytes(std::size_t count, std::string& out) {
    while (buffer_.size() - from_ < count) {
      if (!receive()) return false;
    }
    out = buffer_.substr(from_, count);
    take(from_ + count);
    return true;
  }

 private:
  void take(std::size_t to) {
    from_ = to;
    if (from_ <= 65536) return;
    buffer_.erase(0, from_);
    from_ = 0;
  }
  bool receive() {
    char bytes[8192];
    const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return good_ = false;
    buffer_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }

  int fd_;
  bool good_;
  std::string buffer_;
  std::size_t from_ = 0;
};

}  // namespace tailor::bench
