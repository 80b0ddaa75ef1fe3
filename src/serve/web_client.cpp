#include "serve/web_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <string_view>

namespace tailor {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;

constexpr std::chrono::milliseconds kLook{20};  // at the token and the clock
constexpr std::chrono::milliseconds kLongestConnect{5000};
constexpr std::uint32_t kHeadBytes = 64 * 1024;

/// Where systems keep the certificates they trust; OpenSSL's own place is that of the machine it was built on.
constexpr const char* kTrusted[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                    "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

struct Url {
  bool tls = false;
  std::string host, port, target;
  std::string authority;  // as it is written
};

Result<Url> parse_url(const std::string& text) {
  const auto wrong = [&](const char* why) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("this is no http or https URL: {}", why),
                 "http://127.0.0.1:4318/v1/traces"};
  };
  const bool tls = text.starts_with("https://");
  if (!tls && !text.starts_with("http://")) return wrong("it begins with neither");
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; }))
    return wrong("it holds a character that must be escaped");
  const std::size_t begin = tls ? 8 : 7, end = std::min(text.find_first_of("/?#", begin), text.size());
  Url url{tls, "", tls ? "443" : "80", text.substr(end, text.find('#', end) - end), text.substr(begin, end - begin)};
  if (url.target.empty() || url.target.front() != '/') url.target.insert(0, "/");
  if (url.authority.find('@') != std::string::npos) return wrong("names and passwords belong into headers");
  const std::size_t bracket = url.authority.starts_with('[') ? url.authority.find(']') : 0;
  if (bracket == std::string::npos) return wrong("its address has no ]");
  const std::size_t colon = url.authority.find(':', bracket);
  url.host = bracket > 0 ? url.authority.substr(1, bracket - 1) : url.authority.substr(0, colon);
  if (url.host.empty()) return wrong("it names no host");
  if (colon != std::string::npos) {
    url.port = url.authority.substr(colon + 1);
    int number = 0;
    const auto read = std::from_chars(url.port.data(), url.port.data() + url.port.size(), number);
    if (read.ec != std::errc() || read.ptr != url.port.data() + url.port.size() || number < 1 || number > 65535)
      return wrong("its port is none");
  }
  return url;
}

ssl::context trusting_context() {
  ssl::context context(ssl::context::tls_client);
  boost::system::error_code ignored;
  context.set_default_verify_paths(ignored);
  if (std::getenv("SSL_CERT_FILE") == nullptr) {
    for (const char* file : kTrusted) context.load_verify_file(file, ignored);
  }
  context.set_verify_mode(ssl::verify_peer);
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  return context;
}

template <typename Stream>
asio::awaitable<void> talk(Stream& stream, const http::request<http::string_body>& request,
                           http::response_parser<http::string_body>& parser) {
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
}

asio::awaitable<void> exchange(const Url& url, const http::request<http::string_body>& request,
                               http::response_parser<http::string_body>& parser,
                               std::chrono::milliseconds connect_timeout) {
  const auto executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  const auto places = co_await resolver.async_resolve(url.host, url.port, asio::use_awaitable);
  beast::tcp_stream connection(executor);
  connection.expires_after(connect_timeout);
  co_await connection.async_connect(places, asio::use_awaitable);
  connection.expires_never();  // the caller looks at the clock
  if (!url.tls) co_return co_await talk(connection, request, parser);
  ssl::context context = trusting_context();
  beast::ssl_stream<beast::tcp_stream> stream(std::move(connection), context);
  stream.set_verify_callback(ssl::host_name_verification(url.host));
  boost::system::error_code no_name;
  if (asio::ip::make_address(url.host, no_name); no_name)
    SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  co_await stream.async_handshake(ssl::stream_base::client, asio::use_awaitable);
  co_await talk(stream, request, parser);
}

Result<http::request<http::string_body>> to_request(const WebRequest& wanted, const Url& url) {
  http::request<http::string_body> out(wanted.body ? http::verb::post : http::verb::get, url.target, 11);
  out.set(http::field::host, url.authority);
  out.set(http::field::user_agent, "tailor/" TAILOR_VERSION);
  out.set(http::field::connection, "close");
  for (const auto& [name, value] : wanted.fields) {
    if ((name + value).find_first_of("\r\n") != std::string::npos)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the header '{}' holds a line break", name.substr(0, name.find_first_of("\r\n"))), ""};
    out.insert(name, value);
  }
  if (wanted.body) {
    out.body() = *wanted.body;
    out.prepare_payload();
  }
  return out;
}

Error failure(const WebRequest& request, const boost::system::error_code& code) {
  if (code == http::error::body_limit)
    return {ErrorCode::kCorruptData,
            fmt::format("{}: the answer is longer than {} bytes", request.url, request.max_bytes), ""};
  return {ErrorCode::kUnavailable, fmt::format("{}: {}", request.url, code.message()), ""};
}

}  // namespace

Result<WebReply> ask_web(const WebRequest& request, const CancelToken* cancel) {
  TAILOR_TRY(const Url url, parse_url(request.url));
  TAILOR_TRY(const auto message, to_request(request, url));
  http::response_parser<http::string_body> parser;
  parser.header_limit(kHeadBytes);
  parser.body_limit(request.max_bytes);
  std::exception_ptr thrown;
  bool done = false;
  const SteadyTime end = std::chrono::steady_clock::now() + request.timeout;
  asio::io_context loop(1);  // the last to be made: its end is that of the exchange, which uses the others
  asio::co_spawn(loop, exchange(url, message, parser, std::min(request.timeout, kLongestConnect)),
                 [&](std::exception_ptr e) {
                   thrown = std::move(e);
                   done = true;
                 });
  while (!done) {
    loop.run_for(kLook);
    if (done) break;
    if (cancel != nullptr && cancel->cancelled()) return Error{ErrorCode::kCancelled, "cancelled", ""};
    if (std::chrono::steady_clock::now() >= end)
      return Error{ErrorCode::kUnavailable,
                   fmt::format("{}: no answer within {} ms", request.url, request.timeout.count()), ""};
  }
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const boost::system::system_error& error) {
    return failure(request, error.code());
  }
  http::response<http::string_body> answer = parser.release();
  WebReply reply{static_cast<int>(answer.result_int()), std::move(answer.body()), std::nullopt};
  const std::string_view after = answer[http::field::retry_after];
  int seconds = 0;
  if (std::from_chars(after.data(), after.data() + after.size(), seconds).ec == std::errc() && seconds > 0)
    reply.retry_after_s = std::min(seconds, 3600);
  return reply;
}

}  // namespace tailor
