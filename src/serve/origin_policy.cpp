#include "serve/origin_policy.h"

#include <string>
#include <utility>

namespace tailor {
namespace {

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
