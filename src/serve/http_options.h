#pragma once
/// Options of the HTTP server, with what each protects against.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "serve/http_parser.h"

namespace tailor {

struct TlsFiles {
  std::filesystem::path certificate;  // PEM, the server's first, then those up to the root
  std::filesystem::path key;          // PEM, not encrypted, readable by its owner alone
  std::filesystem::path client_ca;    // PEM; clients must show a certificate signed by one of these. Empty: none asked
};

/// Where the server listens: `host` and `port`, or `unix_path`.
struct HttpEndpoint {
  std::string host;        // an address or a name; its first IPv4 address is taken, else its first IPv6 address
  std::uint16_t port = 0;  // 0: any free one, see HttpServer::endpoints()
  std::filesystem::path unix_path;
  unsigned unix_mode = 0600;    // of the socket: who may connect
  std::optional<TlsFiles> tls;  // TLS 1.2 or 1.3
};

/// "127.0.0.1:8080", "[::1]:8080", "name:8080", "unix:/run/tailor.sock".
Result<HttpEndpoint> parse_endpoint(std::string_view text);
std::string to_string(const HttpEndpoint& endpoint);

struct HttpLimits {
  HttpParserLimits parser;
  std::size_t connections = 4096;             // more: 503 and closed
  std::size_t connections_per_address = 256;  // of one IPv4 address or IPv6 /64 network; not for Unix sockets
  std::size_t stream_buffer_bytes = 1 << 20;  // of a stream that its reader has not taken; more: disconnected
  std::size_t body_memory_bytes = 256 << 20;  // of all bodies together, until they have been parsed; more: 503
  std::size_t drained_body_bytes = 64 << 10;  // of a refused request: read past to keep the connection; larger: closed
};

/// Every read and write has a deadline. What was late is answered with 408 where an answer can still be sent.
struct HttpTimeouts {
  using Milliseconds = std::chrono::milliseconds;
  Milliseconds handshake{10'000};   // TLS
  Milliseconds header{10'000};      // from the first byte of a head, or from the connection's begin, to its end
  Milliseconds idle{15'000};        // between requests; closed without a word
  Milliseconds body{120'000};       // the whole body; HttpAdmission may give another
  Milliseconds body_window{5'000};  // in each of these at least so many bytes of the body:
  std::size_t body_bytes_per_second = 1024;
  Milliseconds write{30'000};  // no byte of an answer taken by the reader
  Milliseconds linger{2'000};  // after the last answer, for the client to close first, so that it reads that answer
};

struct HttpServerOptions {
  std::vector<HttpEndpoint> endpoints;
  HttpLimits limits;
  HttpTimeouts timeouts;
  std::chrono::seconds hsts{0};  // over TLS: Strict-Transport-Security for so long; 0: not said. Clients keep it
  int io_threads = 1;            // >= 1; one is enough for about 40,000 small requests a second
};

}  // namespace tailor
