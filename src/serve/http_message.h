#pragma once
/// What a handler of the HTTP server sees of a request and gives as an answer.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

class HttpFileBody;  // http_file.h

struct HttpHeader {
  std::string name, value;
};

/// Fields in the order in which they came. Names compare without case; a field may stand several times.
class HttpHeaders {
 public:
  HttpHeaders() = default;
  HttpHeaders(std::initializer_list<HttpHeader> fields) : fields_(fields) {}
  void add(std::string name, std::string value) { fields_.push_back({std::move(name), std::move(value)}); }
  const std::string* find(std::string_view name) const;  ///< the first; null where absent
  std::size_t count(std::string_view name) const;
  std::size_t size() const { return fields_.size(); }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<HttpHeader> fields_;
};

bool same_name(std::string_view a, std::string_view b);  ///< ASCII, without case

/// A request without its body, already checked: see http_parser.h for what never gets here.
struct HttpHead {
  std::string method;  // one of GET HEAD POST PUT PATCH DELETE OPTIONS TRACE QUERY
  std::string path;    // percent-decoded, begins with "/"; no NUL, no ".." segment. "*": OPTIONS *
  std::string query;   // as it came, without "?"
  std::string host;    // of Host, lower case, without port; empty where HTTP/1.0 came without one
  std::string port;    // of Host, digits; empty where it names none
  HttpHeaders headers;
  std::string remote_address;  // "192.0.2.1", "2001:db8::1"; empty over a Unix socket
  std::string tls_client;      // common name of the client's certificate, where one was asked for
  bool over_tls = false;
  bool over_unix_socket = false;
  std::optional<std::uint64_t> content_length;  // of the body; absent: chunked or no body
};

/// The first value of `name` in the query, decoded ("+" is a space); absent where it is missing or badly encoded.
std::optional<std::string> query_parameter(std::string_view query, std::string_view name);

/// The first 100 names in the query, decoded, each once; those that are badly encoded as they came.
std::vector<std::string> query_names(std::string_view query);

/// Undoes %XX. Absent where a "%" is not followed by two hexadecimal digits.
std::optional<std::string> percent_decode(std::string_view text);

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;  // Content-Length, Transfer-Encoding, Connection and Date are the server's and ignored here
  std::string body;
  std::shared_ptr<const HttpFileBody> file = nullptr;  // instead of `body`
};

/// An answer that is written once and sent often: only the date is added for each request. Without a file.
class PreparedResponse {
 public:
  explicit PreparedResponse(HttpResponse response);
  const std::string& head() const { return head_; }  ///< status line and fields, without Date, Connection, empty line
  const std::string& body() const { return body_; }
  int status() const { return status_; }

 private:
  int status_;
  std::string head_, body_;
};

std::string_view reason_phrase(int status);

/// Status line and fields of an answer, each with its line end, without Date, Connection and the empty line. With
/// `body_bytes` it holds Content-Length, where the status may have one. A field that would break the framing (control
/// characters) makes it a bare 500 without a body: `usable` tells.
struct SerialisedHead {
  std::string text;
  bool usable = true;
};
SerialisedHead serialise_head(int status, const HttpHeaders& headers, std::optional<std::uint64_t> body_bytes);

/// "Date: Mon, 30 Nov 2026 04:52:20 GMT\r\n" of now. The calling thread keeps it for the second.
std::string_view date_field();

bool may_have_body(int status);  ///< not 1xx, 204, 304

}  // namespace tailor
