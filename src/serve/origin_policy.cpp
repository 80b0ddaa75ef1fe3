#include "serve/origin_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "serve/http_target.h"

namespace tailor {
namespace {

struct Origin {
  std::string scheme, host, port;
};

std::string_view usual_port(std::string_view scheme) {
  return scheme == "https" ? "443" : scheme == "http" ? "80" : "";
}

bool is_scheme(std::string_view text) {
  return !text.empty() && text.front() >= 'a' && text.front() <= 'z' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
         });
}

/// Nothing for "null", which is what browsers call pages that shall have no origin.
std::optional<Origin> read_origin(std::string_view text) {
  const std::size_t colon = text.find("://");
  if (colon == std::string_view::npos || !is_scheme(text.substr(0, colon))) return std::nullopt;
  const auto authority = parse_http_authority(text.substr(colon + 3));
  if (!authority) return std::nullopt;
  Origin out{std::string(text.substr(0, colon)), authority->host, authority->port};
  if (out.port.empty()) out.port = usual_port(out.scheme);
  return out;
}

/// What browsers hide from pages unless it is named here.
constexpr const char* kShown =
    "X-Request-Id, X-Ignored-Params, Retry-After, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";

class ReadableResponder final : public HttpResponder {
 public:
  ReadableResponder(std::shared_ptr<HttpResponder> inner, std::string origin)
      : inner_(std::move(inner)), origin_(std::move(origin)) {}
  void send(HttpResponse response) override {
    let_read(response.headers, origin_);
    inner_->send(std::move(response));
  }
  void send(std::shared_ptr<const PreparedResponse> response) override { inner_->send(std::move(response)); }
  void begin_stream(int status, HttpHeaders headers) override {
    let_read(headers, origin_);
    inner_->begin_stream(status, std::move(headers));
  }
  bool write(std::string_view piece) override { return inner_->write(piece); }
  void finish() override { inner_->finish(); }
  void set_keep_alive_comment(std::chrono::milliseconds interval) override { inner_->set_keep_alive_comment(interval); }
  void on_silence(std::chrono::milliseconds interval, std::function<void()> callback) override {
    inner_->on_silence(interval, std::move(callback));
  }
  void on_disconnect(std::function<void()> callback) override { inner_->on_disconnect(std::move(callback)); }
  bool gone() const override { return inner_->gone(); }

 private:
  std::shared_ptr<HttpResponder> inner_;
  std::string origin_;
};

}  // namespace

Result<std::string> parse_origin(std::string_view text) {
  const auto origin = read_origin(text);
  if (!origin)
    return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is no origin", text),
                 "expected scheme, host and port of a page, as https://shop.example or http://localhost:3000"};
  const bool v6 = origin->host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + origin->host + "]" : origin->host;
  const bool usual = origin->port == usual_port(origin->scheme);
  return origin->scheme + "://" + host + (usual ? "" : ":" + origin->port);
}

bool ListedOrigins::allows(std::string_view origin) const {
  const auto named = parse_origin(origin);
  return named && std::find(origins_.begin(), origins_.end(), *named) != origins_.end();
}

bool is_of_other_origin(const HttpHead& head) {
  const std::size_t named = head.headers.count("Origin");
  if (named == 0) return false;
  const auto page = named == 1 ? read_origin(*head.headers.find("Origin")) : std::nullopt;
  const std::string* host = head.headers.find("Host");
  if (!page || host == nullptr) return true;
  const auto own = parse_http_authority(*host);
  const bool web = page->scheme == "https" || (page->scheme == "http" && !head.over_tls);
  return !web || !own || own->host != page->host ||
         (own->port.empty() ? usual_port(page->scheme) : own->port) != page->port;
}

bool changes_state(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH" || method == "DELETE";
}

std::string allowed_origin(const OriginPolicy* policy, const HttpHead& head) {
  if (policy == nullptr || head.headers.count("Origin") != 1) return {};
  const std::string* origin = head.headers.find("Origin");
  return policy->allows(*origin) ? *origin : std::string();
}

bool is_preflight(const HttpHead& head) {
  return head.method == "OPTIONS" && head.headers.find("Access-Control-Request-Method") != nullptr;
}

HttpResponse preflight_answer(std::string_view origin) {
  HttpResponse out{204, {}, {}};
  let_read(out.headers, origin);
  out.headers.add("Access-Control-Allow-Methods", "GET, POST, DELETE");
  out.headers.add("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id");
  out.headers.add("Access-Control-Max-Age", "600");
  return out;
}

void let_read(HttpHeaders& headers, std::string_view origin) {
  headers.add("Access-Control-Allow-Origin", std::string(origin));
  headers.add("Access-Control-Expose-Headers", kShown);
  headers.add("Vary", "Origin");
}

std::shared_ptr<HttpResponder> let_read(std::shared_ptr<HttpResponder> responder, std::string origin) {
  return std::make_shared<ReadableResponder>(std::move(responder), std::move(origin));
}

}  // namespace tailor
